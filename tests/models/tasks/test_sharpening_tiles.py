"""Sharpening in tiles: parity with the published test, tiles against the whole, errors."""

import re

import pytest
import torch
import torch.nn.functional as F
from recorded import recorded
from torch import Tensor

from mamba_vision.checkpoints import load_published
from mamba_vision.models.networks import FusionMamba
from mamba_vision.models.tasks.restoration_tiles import Tiling
from mamba_vision.models.tasks.sharpening_tiles import sharpen_as_published, sharpen_in_tiles


@pytest.mark.parametrize("name", recorded("fusionmamba", "U2Net", only="test.test"))
def test_published_tiles(golden, name: str) -> None:
    case = golden(f"fusionmamba/{name}")
    kwargs = case.source["kwargs"]
    said = dict(re.findall(r"(cut_size|pad)=(\d+)", case.source["class"]))
    model = FusionMamba(dim=kwargs["dim"], bands=kwargs["ms_dim"], guide_channels=kwargs["pan_dim"]).eval()
    load_published(model, case.state_dict())
    with torch.no_grad():
        fused = sharpen_as_published(
            model, **case.inputs(), tile=int(said.get("cut_size", 256)), margin=int(said.get("pad", 0))
        )
    case.check(output=2047 * fused.permute(0, 2, 3, 1))


def local_network(ms: Tensor, pan: Tensor) -> Tensor:
    """Looks no further than three pixels of the guide."""
    return F.interpolate(ms, scale_factor=4.0) + pan - F.avg_pool2d(pan, 7, 1, 3, count_include_pad=False)


@pytest.mark.parametrize("size", [(70, 33), (16, 20), (50, 64)])
def test_tiles_are_the_whole_where_the_network_looks_near(size: tuple[int, int]) -> None:
    ms, pan = torch.rand(2, 3, *size), torch.rand(2, 1, *(4 * side for side in size))
    calls = []
    tiles = sharpen_in_tiles(local_network, ms, pan, Tiling(tile=20, overlap=0.25), lambda *seen: calls.append(seen))
    # The far ends may be filled up by mirroring, which the network sees there.
    torch.testing.assert_close(tiles[..., :-3, :-3], local_network(ms, pan)[..., :-3, :-3])
    assert calls[-1][0] == calls[-1][1]


def test_published_tiles_leave_no_seams_where_the_margin_is_wide_enough() -> None:
    ms, pan = torch.rand(1, 3, 12, 12) / 2, torch.rand(1, 1, 48, 48) / 4 + 0.5
    got = sharpen_as_published(local_network, ms, pan, tile=16, margin=8)
    torch.testing.assert_close(got[..., 4:-4, 4:-4], local_network(ms, pan).clamp(0, 1)[..., 4:-4, 4:-4])


def test_errors() -> None:
    ms, pan = torch.rand(1, 3, 8, 8), torch.rand(1, 1, 32, 32)
    with pytest.raises(ValueError, match=r"pan: found shape \(1, 1, 32, 30\)"):
        sharpen_in_tiles(local_network, ms, pan[..., :30])
    with pytest.raises(ValueError, match="tile: expected a multiple of the scale 4 from 4, found 30"):
        sharpen_as_published(local_network, ms, pan, tile=30)
    with pytest.raises(ValueError, match="margin: found 8 pixels of an image of 8 x 8"):
        sharpen_as_published(local_network, ms, pan, tile=16, margin=32)
