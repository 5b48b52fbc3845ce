"""SegMamba: parity of blocks, encoder and network, checkpoints, any size, precision."""

from pathlib import Path

import pytest
import torch
from network_cases import marked, recorded_gradients
from recorded import recorded
from torch import Tensor

from mamba_vision.checkpoints import CheckpointError, load_published
from mamba_vision.models.networks.segmamba import ARCHS, MambaEncoder, SegMamba, SpatialConv, VolumeMambaLayer
from mamba_vision.registry import MODELS


@pytest.mark.parametrize("name", recorded("segmamba", "MambaLayer", "GSC"))
def test_block_parity(golden, name: str) -> None:
    case = golden(f"segmamba/{name}")
    kwargs = dict(case.source["kwargs"])
    if case.source["class"].endswith("GSC"):
        block = SpatialConv(kwargs["in_channles"])
    else:
        block = VolumeMambaLayer(kwargs.pop("dim"), kwargs.pop("num_slices", None), **kwargs)
    load_published(block, case.state_dict())
    output = block(case.inputs()["x"])
    case.loss(output=output).backward()
    case.check(recorded_gradients(block, case), output=output)


@pytest.mark.parametrize("name", recorded("segmamba", "MambaEncoder"))
def test_encoder_parity(golden, name: str) -> None:
    case = golden(f"segmamba/{name}")
    kwargs = {"in_chans": 1, "depths": [2, 2, 2, 2], "dims": [48, 96, 192, 384], **case.source["kwargs"]}
    encoder = MambaEncoder(kwargs["in_chans"], kwargs["depths"], kwargs["dims"], (64, 32, 16, 8))
    load_published(encoder, case.state_dict())
    sides = encoder(case.inputs()["x"])
    outputs = {name: sides[int(name[5:])] for name in case.outputs}
    if case.gradients:
        case.loss(**outputs).backward()
    case.check(recorded_gradients(encoder, case), **outputs)


def run(case) -> tuple[SegMamba, dict[str, Tensor]]:
    """The case's network, loaded as the authors save it, and every recorded output."""
    unused = ("drop_path_rate", "layer_scale_init_value", "conv_block")  # by the published network
    kwargs = {name: value for name, value in case.source["kwargs"].items() if name not in unused}
    model = SegMamba(in_channels=kwargs.pop("in_chans", 1), num_classes=kwargs.pop("out_chans", 13), **kwargs)
    load_published(model, {"module": {f"module.{name}": value for name, value in case.state_dict().items()}})
    assert sum(p.numel() for p in model.parameters()) == case.parameters
    kept: dict[str, Tensor] = {}
    model.vit.register_forward_hook(lambda _, __, sides: kept.update({f"stage{i}": y for i, y in enumerate(sides)}))
    kept["output"] = model(case.inputs()["x"])
    return model, {name: kept[name] for name in case.outputs}


@pytest.mark.parametrize("name", marked("segmamba", "SegMamba", slow=("segmamba_brats",)))
def test_network_parity(golden, name: str) -> None:
    case = golden(f"segmamba/{name}")
    with torch.set_grad_enabled(bool(case.gradients)):
        model, outputs = run(case)
    if case.gradients:
        case.loss(**outputs).backward()
    case.check(recorded_gradients(model, case), **outputs)


@pytest.mark.parametrize(("arch", "millions"), [("brats2023", 67.42), ("default", 67.36)])
def test_published_sizes(arch: str, millions: float) -> None:
    with torch.device("meta"):
        model = SegMamba(arch)
    assert len(model.state_dict()) == 291
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize("size", [(16, 16, 16), (17, 33, 16), (48, 16, 20), (3, 2, 1)])
def test_any_volume_size(size: tuple[int, ...]) -> None:
    """Also those whose token numbers the published slices do not divide."""
    logits = SegMamba("tiny").eval()(torch.randn(1, 1, *size))
    assert logits.shape == (1, 3, *size) and logits.isfinite().all()


def test_options() -> None:
    model = SegMamba("tiny", slices=(None,) * 4, res_block=False, norm_name=("instance", {"affine": True}))
    assert (
        "encoder1.layer.norm1.weight" in model.state_dict()
        and "encoder1.layer.conv3.conv.weight" not in model.state_dict()
    )
    assert model(torch.randn(1, 1, 32, 16, 16)).shape == (1, 3, 32, 16, 16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(dtype: torch.dtype) -> None:
    model = SegMamba("tiny")
    # 3 x 2 x 2 voxels at the bottom: PyTorch's own bfloat16 conv3d on CPUs leaves parts of a weight's gradient
    # unwritten on smaller grids
    with torch.autocast("cpu", dtype=dtype):
        logits = model(100 * torch.randn(1, 1, 48, 32, 32))
    logits.float().mean().backward()
    assert logits.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())


def test_built_from_a_config_with_pretrained_weights(tmp_path: Path) -> None:
    source = SegMamba("tiny")
    torch.save({f"module.{name}": value for name, value in source.state_dict().items()}, tmp_path / "final.pt")
    pretrained = dict(type="Pretrained", checkpoint=str(tmp_path / "final.pt"))
    model = MODELS.build(dict(type="mamba_vision.SegMamba", arch="tiny", init_cfg=pretrained))
    model.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values()))
    with pytest.raises(CheckpointError, match=r"out\.conv\.conv\.weight: found \(3, 8, 1, 1, 1\), expected \(4,"):
        load_published(SegMamba("tiny", num_classes=4), tmp_path / "final.pt")
    assert "vit.stages.0.0.mamba.A_s_log" in model.no_weight_decay()


@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_every_variant_builds(arch: str) -> None:
    with torch.device("meta"):
        assert SegMamba(arch).num_classes == ARCHS[arch]["num_classes"]


def test_bad_settings_and_input() -> None:
    with pytest.raises(ValueError, match="depths must have 4 entries"):
        SegMamba("tiny", depths=(1, 1))
    with pytest.raises(ValueError, match="spatial_dims must be 3 for SegMamba, found 2"):
        SegMamba("tiny", spatial_dims=2)
    with pytest.raises(ValueError, match=r"x must be \(batch, 1, D, H, W\), found shape \(1, 2, 16, 16, 16\)"):
        SegMamba("tiny")(torch.zeros(1, 2, 16, 16, 16))
