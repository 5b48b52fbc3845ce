"""Fusing images of any size: parity with the published test, tiles against the whole, errors."""

import pytest
import torch
import torch.nn.functional as F
from recorded import recorded
from torch import Tensor

from mamba_vision.checkpoints import load_published
from mamba_vision.models.networks import MambaDFuse
from mamba_vision.models.tasks.fusion_tiles import fuse_as_published, fuse_in_tiles, to_bytes
from mamba_vision.models.tasks.restoration_tiles import Tiling


@pytest.mark.parametrize("name", recorded("mambadfuse", "MambaDFuse", only="test_MambaDFuse"))
def test_published_test(golden, name: str) -> None:
    case = golden(f"mambadfuse/{name}")
    kwargs = case.source["kwargs"]
    model = MambaDFuse(embed_dim=kwargs["embed_dim"], in_channels=kwargs["in_chans"], img_range=kwargs["img_range"])
    load_published(model, case.state_dict())
    with torch.no_grad():
        fused = fuse_as_published(model, *case.inputs().values())
    case.check(fused=fused[0], uint8=to_bytes(fused)[0, 0])


def test_bytes() -> None:
    values = to_bytes(torch.tensor([-1.0, 0.0, 0.5 / 255, 1.5 / 255, 1.0, 7.0]))
    assert values.dtype == torch.uint8 and values.tolist() == [0, 0, 0, 2, 255, 255]


def nearby(first: Tensor, second: Tensor) -> Tensor:
    """Looks no further than three pixels."""
    return torch.maximum(first, F.avg_pool2d(second, 7, 1, 3, count_include_pad=False))


@pytest.mark.parametrize("size", [(70, 33), (16, 20), (50, 64)])
def test_tiles_are_the_whole_where_the_network_looks_near(size: tuple[int, int]) -> None:
    first, second = torch.rand(2, 2, 1, *size)
    tiles = fuse_in_tiles(nearby, first, second, Tiling(tile=20, overlap=0.5))
    # The far ends may be filled up by mirroring, which the network sees there.
    torch.testing.assert_close(tiles[..., :-3, :-3], nearby(first, second)[..., :-3, :-3])


@pytest.mark.parametrize("size", [(1, 5), (8, 16), (9, 7)])
def test_published_padding_takes_any_size(size: tuple[int, int]) -> None:
    seen = []

    def mean(first: Tensor, second: Tensor) -> Tensor:
        seen.append(first.shape[2:])
        return (first + second) / 2

    first, second = torch.rand(2, 1, 1, *size)
    assert torch.equal(fuse_as_published(mean, first, second), (first + second) / 2)
    assert seen == [tuple((side // 8 + 1) * 8 for side in size)]


@pytest.mark.parametrize("fuse", [fuse_in_tiles, fuse_as_published])
def test_errors(fuse) -> None:
    with pytest.raises(ValueError, match=r"second: found shape \(1, 1, 8, 9\), expected that of first"):
        fuse(nearby, torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 9))
