"""LightM-UNet: parity in 2 and 3 dimensions, checkpoints, any size, precision."""

from pathlib import Path

import pytest
import torch
from network_cases import recorded_gradients
from recorded import recorded
from torch import Tensor, nn

from mamba_vision.checkpoints import CheckpointError, load_published
from mamba_vision.kernels import use_backend
from mamba_vision.models.networks.lightm_unet import ARCHS, LightMUNet, ResMambaBlock, ResUpBlock, VisionMambaLayer
from mamba_vision.registry import MODELS

BLOCKS = {"ResMambaBlock": ResMambaBlock, "ResUpBlock": ResUpBlock}


def block_of(case) -> nn.Module:
    published, kwargs = case.source["class"].rpartition(".")[2], dict(case.source["kwargs"])
    if published == "MambaLayer":
        return VisionMambaLayer(kwargs.pop("input_dim"), kwargs.pop("output_dim"), **kwargs)
    act = kwargs.get("act", ("relu", {"inplace": True}))
    return BLOCKS[published](kwargs["in_channels"], kwargs["spatial_dims"], kwargs["norm"], act)


@pytest.mark.parametrize("name", recorded("lightm_unet", "MambaLayer", *BLOCKS))
def test_block_parity(golden, name: str) -> None:
    case = golden(f"lightm_unet/{name}")
    block = block_of(case)
    load_published(block, case.state_dict())
    output = block(case.inputs()["x"])
    case.loss(output=output).backward()
    case.check(recorded_gradients(block, case), output=output)


def from_case(case) -> LightMUNet:
    kwargs = {"in_channels": 1, "out_channels": 2, "init_filters": 8, **case.source["kwargs"]}  # published defaults
    if kwargs.pop("norm_name", ""):  # an older way to say it, which knows one name
        kwargs["norm"] = ("group", {"num_groups": kwargs.pop("num_groups", 8)})
    model = LightMUNet(num_classes=kwargs.pop("out_channels"), **kwargs)
    load_published(model, {"network_weights": case.state_dict(), "_best_ema": 0.9})
    assert sum(p.numel() for p in model.parameters()) == case.parameters
    return model


def run(model: LightMUNet, case) -> dict[str, Tensor]:
    """Every recorded output."""
    kept: dict[str, Tensor] = {}
    for i, layer in enumerate(model.down_layers):
        layer.register_forward_hook(lambda _, __, y, i=i: kept.update({f"stage{i}": y}))
    kept["output"] = model(case.inputs()["x"])
    return {name: kept[name] for name in case.outputs}


@pytest.mark.parametrize("name", recorded("lightm_unet", "LightMUNet"))
def test_network_parity(golden, name: str) -> None:
    case = golden(f"lightm_unet/{name}")
    model = from_case(case)
    with torch.set_grad_enabled(bool(case.gradients)):
        outputs = run(model, case)
    if case.gradients:
        case.loss(**outputs).backward()
    case.check(recorded_gradients(model, case), **outputs)


@pytest.mark.parametrize(
    ("arch", "millions"), [("liver_3d", 5.016), ("lung_2d", 5.012), ("liver_3d_f16", 1.345), ("lung_2d_f16", 1.343)]
)
def test_published_sizes(arch: str, millions: float) -> None:
    with torch.device("meta"):
        assert round(sum(p.numel() for p in LightMUNet(arch).parameters()) / 1e6, 3) == millions


@pytest.mark.parametrize("size", [(8, 8, 8), (9, 5, 14), (1, 3, 2)])
def test_any_volume_size(size: tuple[int, ...]) -> None:
    model = LightMUNet("tiny").eval()
    logits = model(torch.randn(1, 1, *size))
    assert logits.shape == (1, 3, *size) and logits.isfinite().all() and model.deep_supervision is False


def test_two_dimensions_and_options() -> None:
    x = torch.randn(2, 3, 13, 20)
    assert LightMUNet("tiny_2d")(x).shape == (2, 3, 13, 20)
    model = LightMUNet("tiny_2d", upsample_mode="deconv", use_conv_final=False, dropout_prob=0.1)
    assert isinstance(model.dropout, torch.nn.Dropout2d)  # whole channels, as in MONAI's SegResNet
    assert "up_samples.0.1.deconv.weight" in model.state_dict() and model(x).shape == (2, 8, 13, 20)
    assert LightMUNet(dict(in_channels=3, num_classes=2, init_filters=8), spatial_dims=2)(x).shape == (2, 2, 13, 20)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_with_large_activations(dtype: torch.dtype) -> None:
    layer = VisionMambaLayer(8, 8)
    with torch.no_grad():
        layer.norm.weight.fill_(1e3)
        layer.mamba.in_proj.weight.mul_(10)
    x = 1e4 * torch.randn(1, 8, 3, 4, 5)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(layer(x), layer(x.clone())) and layer(x).dtype == torch.float32
    model = LightMUNet("tiny")
    with torch.autocast("cpu", dtype=dtype):
        logits = model(100 * torch.randn(1, 1, 8, 8, 8))
    logits.float().mean().backward()
    assert logits.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())


def test_built_from_a_config_with_pretrained_weights(tmp_path: Path) -> None:
    source = LightMUNet("tiny")
    torch.save({"network_weights": source.state_dict()}, tmp_path / "final.pth")
    pretrained = dict(type="Pretrained", checkpoint=str(tmp_path / "final.pth"))
    model = MODELS.build(dict(type="mamba_vision.LightMUNet", arch="tiny", init_cfg=pretrained))
    model.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values()))
    with pytest.raises(CheckpointError, match="does not fit LightMUNet"):
        load_published(LightMUNet("tiny", blocks_down=(1, 1, 2)), tmp_path / "final.pth")
    decay = model.no_weight_decay()
    assert "down_layers.1.0.0.mamba.A_log" in decay and all(name.endswith((".A_log", ".D")) for name in decay)


@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_every_variant_builds(arch: str) -> None:
    with torch.device("meta"):
        assert LightMUNet(arch).num_classes == ARCHS[arch]["num_classes"]


def test_bad_settings_and_input() -> None:
    with pytest.raises(ValueError, match="blocks_up must have 2 entries"):
        LightMUNet("tiny", blocks_up=(1, 1, 1))
    with pytest.raises(ValueError, match="upsample_mode must be one of deconv"):
        LightMUNet("tiny", upsample_mode="nearest")
    with pytest.raises(ValueError, match="give in_channels, num_classes, init_filters"):
        LightMUNet()
    with pytest.raises(ValueError, match=r"x must be \(batch, 1, D, H, W\)"):
        LightMUNet("tiny")(torch.zeros(1, 1, 8, 8))


def test_a_norm_behind_a_layer_keeps_its_digits_on_batches() -> None:
    """PyTorch's group norm loses them on CPUs where channels are last in memory, 5e-6 here."""
    torch.manual_seed(0)
    layer, norm = VisionMambaLayer(8, 8), nn.GroupNorm(8, 8)
    with torch.no_grad(), use_backend("portable"):
        x = layer(torch.randn(2, 8, 32, 32, 32))
        single, double = norm(x), norm.double()(x.double())
    assert (single - double).abs().max() < 1e-6 * double.abs().max()
