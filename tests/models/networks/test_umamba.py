"""U-Mamba: parity of the four published networks, checkpoints, any size, precision."""

from pathlib import Path

import pytest
import torch
from network_cases import recorded_gradients
from recorded import recorded
from torch import nn

from mamba_vision.checkpoints import CheckpointError, load_published
from mamba_vision.models.layers.grid_mamba import GridMamba
from mamba_vision.models.layers.residual import BasicBlockD, BasicResBlock
from mamba_vision.models.networks import UMamba
from mamba_vision.models.networks.lightm_unet import VisionMambaLayer
from mamba_vision.models.networks.segmamba import VolumeMambaLayer
from mamba_vision.models.networks.umamba import ARCHS
from mamba_vision.registry import MODELS


def from_case(case, **settings: object) -> UMamba:
    """The network that a case describes in the published constructor's words, with the case's weights."""
    kwargs = case.source["kwargs"]
    model = UMamba(
        spatial_dims=3 if kwargs["conv_op"].endswith("3d") else 2,
        placement="enc" if "Enc" in case.source["class"] else "bot",
        in_channels=kwargs["input_channels"],
        num_classes=kwargs["num_classes"],
        features=kwargs["features_per_stage"],
        kernel_sizes=kwargs["kernel_sizes"],
        strides=kwargs["strides"],
        n_blocks=kwargs["n_conv_per_stage"],
        n_blocks_decoder=kwargs["n_conv_per_stage_decoder"],
        patch_size=kwargs.get("input_size"),
        deep_supervision=kwargs.get("deep_supervision", False),
        **settings,
    )
    # The published file also lists second names of tensors; they are ignored.
    state = case.state_dict() | {name: torch.zeros(1) for name in case.constant}
    state |= {f"decoder.encoder.{name[8:]}": value for name, value in state.items() if name.startswith("encoder.")}
    report = load_published(model, {"network_weights": state, "current_epoch": 1000, "init_args": {}})
    assert len(report.loaded) == len(case.state) and not report.skipped
    assert sum(p.numel() for p in model.parameters()) == case.parameters
    return model


@pytest.mark.parametrize("name", recorded("umamba", "MambaLayer"))
def test_mamba_layer_parity(golden, name: str) -> None:
    case = golden(f"umamba/{name}")
    layer = GridMamba(**case.source["kwargs"])
    load_published(layer, case.state_dict())
    output = layer(case.inputs()["x"])
    case.loss(output=output).backward()
    case.check(recorded_gradients(layer, case), output=output)


@pytest.mark.parametrize("name", recorded("umamba", "BasicBlockD)"))
def test_res_stage_parity(golden, name: str) -> None:
    case = golden(f"umamba/{name}")
    first, second = (case.source["kwargs"][block] for block in ("BasicResBlock", "BasicBlockD"))
    dims = 3 if first["conv_op"].endswith("3d") else 2
    widths = (first["input_channels"], first["output_channels"])
    stage = nn.Sequential(
        BasicResBlock(dims, *widths, first["kernel_size"], first["stride"]),
        BasicBlockD(dims, second["output_channels"], second["kernel_size"]),
    )
    load_published(stage, case.state_dict())
    output = stage(case.inputs()["x"])
    case.loss(output=output).backward()
    case.check(recorded_gradients(stage, case), output=output)


@pytest.mark.parametrize("name", recorded("umamba", "UMambaBot", "UMambaEnc"))
def test_network_parity(golden, name: str) -> None:
    case = golden(f"umamba/{name}")
    model = from_case(case)
    with torch.set_grad_enabled(bool(case.gradients)):
        logits = model(case.inputs()["x"])
    every = logits if model.deep_supervision else [logits]
    outputs = {seg: every[int(seg[3:])] for seg in case.outputs}
    if case.gradients:
        case.loss(**outputs).backward()
    case.check(recorded_gradients(model, case), **outputs)


def test_the_finest_logits_alone(golden) -> None:
    case = golden("umamba/bot_3d_small")
    model = from_case(case)
    model.deep_supervision = False
    case.check(seg0=model(case.inputs()["x"]))


@pytest.mark.parametrize(
    ("arch", "placement", "millions"),
    [
        ("abdomen_ct", "bot", 41.95),
        ("abdomen_ct", "enc", 42.84),
        ("abdomen_mr", "bot", 41.95),
        ("abdomen_mr", "enc", 42.84),
        ("endoscopy", "bot", 47.52),
        ("endoscopy", "enc", 47.68),
        ("microscopy", "bot", 64.80),
        ("microscopy", "enc", 64.01),
    ],
)
def test_published_sizes(arch: str, placement: str, millions: float) -> None:
    with torch.device("meta"):
        model = UMamba(arch, placement=placement)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("stages", "blocks", "blocks_up"),
    [(6, [2, 2, 2, 1, 1, 1], [2, 2, 2, 1, 1]), (7, [2, 2, 2, 2, 1, 1, 1], [2, 2, 2, 2, 1, 1])],
)
def test_deep_stages_have_one_block_and_the_callers_lists_stay(stages: int, blocks: list, blocks_up: list) -> None:
    asked = [2] * stages
    with torch.device("meta"):
        model = UMamba(
            in_channels=1, num_classes=2, features=[4] * stages, strides=[1] + [2] * (stages - 1), n_blocks=asked
        )
    assert [len(stage) for stage in model.encoder.stages] == blocks
    assert [len(stage) for stage in model.decoder.stages] == blocks_up
    assert asked == [2] * stages


@pytest.mark.parametrize("size", [(16, 16, 16), (17, 9, 22), (4, 4, 4), (1, 3, 2)])
def test_any_volume_size(size: tuple[int, ...]) -> None:
    model = UMamba("tiny").eval()
    logits = model(torch.randn(1, 1, *size))
    assert [tuple(y.shape) for y in logits] == [(1, 3, *size), (1, 3, *(-(-n // 2) for n in size))]
    assert all(y.isfinite().all() for y in logits)


def test_padding_is_exact_where_the_strides_divide() -> None:
    """What is cut away did not reach what is kept, but for the edge: the padded network sees its own padding."""
    model, x = UMamba("tiny", deep_supervision=False).eval(), torch.randn(1, 1, 8, 8, 6)
    padded = torch.nn.functional.pad(x, (0, 2, 0, 0, 0, 0), mode="replicate")
    assert torch.equal(model(x), model(padded)[..., :6])


def test_enc_with_channel_tokens_takes_its_patch_only() -> None:
    model = UMamba("tiny", placement="enc", features=(8, 16, 72))
    assert model.fixed_size and model(torch.randn(1, 1, 16, 16, 16))[0].shape == (1, 3, 16, 16, 16)
    assert model(torch.randn(1, 1, 15, 16, 14))[0].shape == (1, 3, 15, 16, 14)  # padded to the patch
    with pytest.raises(ValueError, match=r"patch_size \(16, 16, 16\) only.*found \(16, 16, 32\)"):
        model(torch.randn(1, 1, 16, 16, 32))
    free = UMamba("tiny", placement="enc")
    assert not free.fixed_size and free(torch.randn(1, 1, 8, 20, 12))[0].shape == (1, 3, 8, 20, 12)


def test_placement_in_two_dimensions() -> None:
    """Every second stage counted from the last, which always has one."""
    for stages, expected in ((7, [0, 2, 4, 6]), (8, [1, 3, 5, 7])):
        strides, settings = [1] + [2] * (stages - 1), dict(spatial_dims=2, in_channels=3, num_classes=2)
        with torch.device("meta"):
            model = UMamba(placement="enc", features=[8] * stages, strides=strides, patch_size=(512, 512), **settings)
        assert [i for i, m in enumerate(model.encoder.mamba_layers) if isinstance(m, GridMamba)] == expected


@pytest.mark.parametrize("placement", ["bot", "enc"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_with_large_activations(placement: str, dtype: torch.dtype) -> None:
    """A Mamba layer fed 1e4 times its usual input stays finite, and close to float32, inside an autocast region."""
    layer = GridMamba(8)
    with torch.no_grad():
        layer.norm.weight.fill_(1e3)
        layer.mamba.in_proj.weight.mul_(10)
    x = 1e4 * torch.randn(1, 8, 3, 4, 5)
    with torch.autocast("cpu", dtype=dtype):
        got = layer(x)
    assert got.dtype == torch.float32 and torch.equal(got, layer(x)) and got.abs().max() > 65504

    model = UMamba("tiny", placement=placement)
    with torch.autocast("cpu", dtype=dtype):
        logits = model(100 * torch.randn(1, 1, 16, 16, 16))
    sum(y.float().mean() for y in logits).backward()
    assert all(y.isfinite().all() for y in logits)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_initialization() -> None:
    """Convolutions over space: Kaiming for LeakyReLU; the scan's own layers keep theirs."""
    model = UMamba("tiny", features=(32, 64, 96))
    weight = model.encoder.stages[1][0].conv2.weight
    assert abs(weight.std() / (2 / (1 + 0.01**2) / weight[0].numel()) ** 0.5 - 1) < 0.02
    assert all((m.bias == 0).all() for m in model.modules() if isinstance(m, nn.Conv3d))
    assert model.mamba_layer.mamba.conv1d.bias.abs().max() > 0 and (model.mamba_layer.mamba.dt_proj.bias < 0).all()
    assert model.no_weight_decay() == {"mamba_layer.mamba.A_log", "mamba_layer.mamba.D"}


def test_built_from_a_config_with_pretrained_weights(tmp_path: Path) -> None:
    source = UMamba("tiny")
    torch.save({"network_weights": source.state_dict(), "init_args": {"plans": {}}}, tmp_path / "final.pth")
    pretrained = dict(type="Pretrained", checkpoint=str(tmp_path / "final.pth"))
    model = MODELS.build(dict(type="mamba_vision.UMamba", arch="tiny", init_cfg=pretrained))
    model.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values()))

    with pytest.raises(CheckpointError, match=r"final\.pth does not fit UMamba(.|\n)*seg_layers\.0\.weight: found"):
        load_published(UMamba("tiny", num_classes=5), tmp_path / "final.pth")
    load_published(UMamba("tiny", num_classes=5), tmp_path / "final.pth", skip=["decoder.seg_layers.**"])


@pytest.mark.parametrize("arch", sorted(ARCHS))
@pytest.mark.parametrize("placement", ["bot", "enc"])
def test_every_variant_builds(arch: str, placement: str) -> None:
    with torch.device("meta"):
        assert UMamba(arch, placement=placement).spatial_dims == ARCHS[arch]["spatial_dims"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(arch="huge"), "unknown arch 'huge'; choose one of abdomen_ct"),
        (dict(arch=dict(depth=3)), "unknown settings depth"),
        (dict(in_channels=1), "give num_classes, features, strides"),
        (dict(arch="tiny", placement="mid"), "placement must be 'bot' or 'enc', found 'mid'"),
        (dict(arch="tiny", spatial_dims=4), "spatial_dims must be 2 or 3, found 4"),
        (dict(arch="tiny", strides=(1, 2)), "strides must have one entry a stage: 3"),
        (dict(arch="tiny", strides=(2, 2, 2)), "strides must begin with 1"),
        (dict(arch="tiny", kernel_sizes=(3, (3, 3), 3)), r"kernel_sizes must be a positive integer or 3 of them"),
        (dict(arch="tiny", n_blocks=[2, 2]), "n_blocks must be a positive integer or 3 of them"),
        (
            dict(spatial_dims=2, in_channels=1, num_classes=2, features=(4, 4), strides=(1, 2), placement="enc"),
            "patch_size",
        ),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UMamba(**settings)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"x must be \(batch, 1, D, H, W\), found shape \(1, 2, 8, 8, 8\)"):
        UMamba("tiny")(torch.zeros(1, 2, 8, 8, 8))
    with pytest.raises(TypeError):
        UMamba("tiny", dropout=0.1)


def test_layers_take_the_settings_of_their_scan() -> None:
    scan = dict(d_state=5, d_conv=3, expand=3)
    for layer in (GridMamba(8, **scan), VisionMambaLayer(8, 4, **scan), VolumeMambaLayer(8, **scan)):
        assert layer.mamba.A_log.shape == (24, 5) and layer.mamba.conv1d.weight.shape == (24, 1, 3)
        assert layer(torch.randn(1, 8, 3, 4, 5)).shape[2:] == (3, 4, 5)
