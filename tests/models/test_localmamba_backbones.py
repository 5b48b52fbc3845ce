"""What a user of LocalVim and LocalVMamba expects beside parity: variants, sizes, options, files, errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import DefaultScope
from mmpretrain.models import ImageClassifier
from mmseg.models import EncoderDecoder

from mamba_vision.checkpoints import load_published
from mamba_vision.checkpoints.errors import CheckpointError
from mamba_vision.models.backbones import LocalVim, LocalVMamba, local_vim, local_vmamba
from mamba_vision.models.layers.local_directions import SEARCHED, UNSEARCHED, directions_by_layer
from mamba_vision.models.mixers import DirectionMerge
from mamba_vision.models.mixers.direction_merge import direction_weights, strongest_directions
from mamba_vision.scan_orders.local import CANDIDATES

SYSTEMS = {"LocalVim": LocalVim, "LocalVMamba": LocalVMamba}


def small(system: str, **options) -> torch.nn.Module:
    positions = dict(img_size=64) if system == "LocalVim" else {}
    return SYSTEMS[system](**{"arch": "test", **positions, **options})


def classifier(system: str, classes: int = 1000, **options) -> ImageClassifier:
    own = dict(out_indices=(-1,)) if system == "LocalVMamba" else {}
    backbone = SYSTEMS[system](**own, **options)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        neck = dict(type="GlobalAveragePooling") if own else None
        head = dict(type="LinearClsHead", num_classes=classes, in_channels=backbone.embed_dims)
        return ImageClassifier(backbone, neck=neck, head=head)


VARIANTS = [("LocalVim", name) for name in local_vim.PARAMETERS]
VARIANTS += [("LocalVMamba", name) for name in local_vmamba.PARAMETERS]


@pytest.mark.parametrize(("system", "name"), VARIANTS)
def test_published_parameter_counts(system, name):
    with torch.device("meta"):
        model = classifier(system, arch=name)
    module = {"LocalVim": local_vim, "LocalVMamba": local_vmamba}[system]
    assert sum(p.numel() for p in model.parameters()) == module.PARAMETERS[name]
    assert set(module.PARAMETERS) == set(module.ARCHS) - {"test"}


def test_published_directions_are_whole():
    assert [len(directions_by_layer(name, n)) for name, n in zip(SEARCHED, (20, 15, 33))] == [20, 15, 33]
    for name, layers in zip(SEARCHED, (20, 15, 33)):
        for line in directions_by_layer(name, layers):
            assert len(line) == 4 and [d for d in CANDIDATES if d in line] == list(line)


def test_directions_as_text_and_lists():
    assert directions_by_layer(None, 2) == [tuple(UNSEARCHED.split())] * 2
    assert directions_by_layer("h v", 2) == [("h", "v")] * 2
    assert directions_by_layer(["h w3", ["v", "v_flip", "w5"]], 2) == [("h", "w3"), ("v", "v_flip", "w5")]
    model = small("LocalVMamba", directions=["h", "h v", "v w3 w4", ["w5_flip"], "v h"])
    assert [len(b.op.scan.labels) for s in model.layers for b in s.blocks] == [1, 2, 3, 1, 2]
    assert model(torch.randn(1, 3, 36, 40))[0].shape == (1, 16, 9, 10)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70))
def test_vim_takes_any_size(height, width):
    model = small("LocalVim", out_type="featmap", out_indices=(0, 2)).eval()
    maps = model(torch.randn(1, 3, height, width))
    assert [tuple(m.shape) for m in maps] == [(1, 32, -(-height // 16), -(-width // 16))] * 2
    assert all(m.is_contiguous() and m.isfinite().all() for m in maps)


@settings(max_examples=10, deadline=None)
@given(st.integers(4, 70), st.integers(4, 70))
def test_vmamba_takes_any_size(height, width):
    maps = small("LocalVMamba").eval()(torch.randn(1, 3, height, width))
    grids = [(height // 4, width // 4)]
    for _ in range(3):
        grids.append(tuple(-(-n // 2) for n in grids[-1]))
    assert [tuple(m.shape) for m in maps] == [(1, 16 * 2**i, *grid) for i, grid in enumerate(grids)]


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("search", [False, True])
def test_every_parameter_learns(system, search):
    model = small(system, search=search)
    out = model(torch.randn(2, 3, 64, 48))
    sum((one * torch.randn_like(one)).sum() for one in out).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("out_type", ["cls_token", "avg_featmap", "raw", "featmap"])
def test_vim_with_class_token(out_type):
    model = small("LocalVim", class_token="middle", out_type=out_type)
    (out,) = model(torch.randn(2, 3, 48, 80))
    assert out.shape == {"raw": (2, 16, 32), "featmap": (2, 32, 3, 5)}.get(out_type, (2, 32))
    assert model.rope is None and model.no_weight_decay() == {"pos_embed", "cls_token"}
    raw = small("LocalVim", class_token="middle", out_type="raw")
    if out_type == "cls_token":  # the middle row of all rows
        load_published(raw, model.state_dict())
        x = torch.randn(2, 3, 48, 80)
        torch.testing.assert_close(raw.eval()(x)[0][:, 7], model.eval()(x)[0])


@pytest.mark.parametrize("scan", ["cross", "bidirectional", "hilbert", dict(type="zigzag", schemes=[0, 3])])
@pytest.mark.parametrize("token", ["middle", "none"])
def test_any_scan_order(scan, token):
    vim = small("LocalVim", scan=scan, class_token=token)
    assert vim(torch.randn(2, 3, 64, 48))[0].shape == (2, 32)
    assert small("LocalVMamba", scan=dict(type="cascade"))(torch.randn(1, 3, 32, 48))[-1].shape == (1, 128, 1, 2)
    vmamba = small("LocalVMamba", scan=scan)
    assert vmamba(torch.randn(2, 3, 32, 48))[-1].shape == (2, 128, 1, 2)


@pytest.mark.parametrize("turned", [True, False])
def test_the_residual_stream_turns_unless_told(turned):
    model, seen = small("LocalVim", rope_residual=turned).eval(), {}
    for index in (0, 1):
        hook = lambda _, given, out, index=index: seen.update({index: (given[1], out[1])})  # noqa: E731
        model.layers[index].register_forward_hook(hook)
    model(torch.randn(1, 3, 64, 64))
    assert torch.equal(seen[1][0], seen[0][1]) is not turned


@pytest.mark.parametrize("system", SYSTEMS)
def test_columns_where_they_belong(system):
    """Right and published return of columns differ on maps that are not square, and agree on square ones."""
    directions = "h v v_flip w2"
    published = small(system, directions=directions).eval()
    right = small(system, directions=directions, published_reversal=False).eval()
    right.load_state_dict(published.state_dict())
    square, wide = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(published(square)[0], right(square)[0])
    assert not torch.allclose(published(wide)[0], right(wide)[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("system", SYSTEMS)
def test_recomputing_changes_nothing(system):
    x = torch.randn(2, 3, 32, 32)
    plain, saving = small(system), small(system, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    for model in (plain, saving):
        model.train()(x)[-1].square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters()):
        if a.grad is not None or b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_frozen_stages():
    model = small("LocalVim", frozen_stages=2, drop_path_rate=0.5).train()
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    assert free and all(name.startswith(("layers.2.", "norm_f.")) for name in free)
    assert not model.layers[1].training and model.layers[2].training
    model = small("LocalVMamba", frozen_stages=2).train()
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    assert free and all(name.startswith(("layers.2.", "layers.3.", "outnorm2", "outnorm3")) for name in free)


def test_start_of_parameters():
    """LocalVim's published start overwrites Mamba's step sizes; LocalVMamba keeps them."""
    model = LocalVim(dict(embed_dims=64, num_layers=2), img_size=64)
    mixer = model.layers[0].mixer
    assert not mixer.dt_proj_3.bias.any() and 0.017 < mixer.dt_proj_3.weight.std() < 0.023
    bound = 128**-0.5 / 2**0.5
    assert 0.95 * bound < mixer.out_proj.weight.abs().max() <= bound
    torch.testing.assert_close(mixer.A_log_2.exp()[5], torch.arange(1.0, 17))
    assert len({p.data_ptr() for p in model.parameters()}) == len(list(model.parameters()))  # no shared storage
    torch.testing.assert_close(mixer.attn(torch.ones(1, 3, 128)), torch.full((1, 3, 128), 0.5))
    op = small("LocalVMamba").layers[0].blocks[0].op
    steps = torch.nn.functional.softplus(op.dt_projs_bias)
    assert steps.min() > 0.00099 and steps.max() < 0.101
    weights = DirectionMerge(1000, search=True).weights
    assert weights.shape == (1000, 1, 1, 1) and 0.0009 < weights.std() < 0.0011


def test_layer_depths():
    vim, vmamba = small("LocalVim"), small("LocalVMamba")
    depth = lambda model, name: model.get_layer_depth(f"backbone.{name}", "backbone.")  # noqa: E731
    assert depth(vim, "pos_embed") == (0, 5) and depth(vim, "layers.2.mixer.D_0") == (3, 5)
    assert depth(vim, "norm_f.weight") == (4, 5) and vim.get_layer_depth("head.fc.weight", "backbone.") == (4, 5)
    assert depth(vmamba, "patch_embed.0.bias") == (0, 7) and depth(vmamba, "layers.0.downsample.norm.bias") == (2, 7)
    assert depth(vmamba, "layers.2.blocks.1.op.Ds") == (4, 7) and depth(vmamba, "outnorm0.weight") == (6, 7)
    assert vmamba.get_layer_depth("head.fc.weight", "backbone.") == (6, 7)


def published(model: torch.nn.Module, head: str = "head") -> dict[str, torch.Tensor]:
    """What a published classification file of this backbone holds."""
    state = {name.replace("outnorm3", "classifier.norm"): value for name, value in model.state_dict().items()}
    return {**state, f"{head}.weight": torch.randn(10, 32), f"{head}.bias": torch.randn(10)}


def test_vim_dense_model_takes_a_classifiers_file():
    """As published: RMSNorm weights start LayerNorms, positions and rotary tables are resized, head and norm go."""
    source = small("LocalVim")
    source.rope.freqs_cos.mul_(0.5)  # tables of the file count, not computed ones
    model = small("LocalVim", img_size=96, norm="ln", out_type="featmap", out_indices=(0, 2))
    load_published(model, {"model": published(source)}, skip=["outnorm_*.*", "layers.*.norm.bias"])
    assert model.pos_embed.shape == (1, 36, 32) and 0.35 < model.rope.freqs_cos.max() < 0.7
    torch.testing.assert_close(model.layers[1].norm.weight, source.layers[1].norm.weight)


def test_vmamba_dense_model_takes_a_classifiers_file():
    source = small("LocalVMamba", out_indices=(-1,))
    model = small("LocalVMamba")
    report = load_published(model, {"state_dict": published(source, "classifier.head")}, skip=["outnorm*.*"])
    assert len(report.skipped) == 8
    torch.testing.assert_close(model.layers[3].blocks[0].op.Ds, source.layers[3].blocks[0].op.Ds)


def test_moving_average_of_a_training_file():
    source, average = small("LocalVim"), small("LocalVim")
    file = {
        "model": source.state_dict(),
        "ema_model": {f"module.module.{k}": v for k, v in average.state_dict().items()},
    }
    model = small("LocalVim")
    load_published(model, file, ema=True)
    torch.testing.assert_close(model.pos_embed, average.pos_embed)


def test_a_supernets_file_does_not_fit_the_found_network():
    with pytest.raises(CheckpointError, match=r"left over .*\s+layers.0.mixer.A_log_4"):
        load_published(small("LocalVim"), small("LocalVim", search=True).state_dict())


def test_directions_are_found_by_weight():
    model = small("LocalVim", search=True)
    with torch.no_grad():
        model.layers[1].mixer.multi_scan.weights[[6, 1, 3, 0]] += torch.tensor([3.0, 2, 1, 0.5]).view(4, 1, 1, 1)
    weights = direction_weights(model)
    assert weights.shape == (3, 8)
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
    assert strongest_directions(weights[1], CANDIDATES) == ("h", "h_flip", "v_flip", "w7")
    assert strongest_directions(weights[1], CANDIDATES, keep=2) == ("h_flip", "w7")
    with pytest.raises(ValueError, match="keep: found 9"):
        strongest_directions(weights[1], CANDIDATES, keep=9)
    with pytest.raises(ValueError, match="weights: found 8"):
        strongest_directions(weights[1], CANDIDATES[:4])
    with pytest.raises(ValueError, match="search=True"):
        direction_weights(small("LocalVim"))


@pytest.mark.parametrize("system", SYSTEMS)
def test_searching_over_other_windows(system):
    model = small(system, search=True, candidates=("h", "v", "w3", "w4_flip", "w5"))
    assert direction_weights(model).shape[1] == 5
    assert all(one.isfinite().all() for one in model(torch.randn(1, 3, 64, 64)))


@pytest.mark.parametrize("system", SYSTEMS)
def test_bfloat16_autocast(system):
    model = small(system, search=True).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(x)[-1]
    assert (out.float() - model(x)[-1]).norm() < 0.05 * out.float().norm()


@pytest.mark.parametrize("system", SYSTEMS)
def test_in_an_mmseg_segmentor(system):
    dims = [32] * 4 if system == "LocalVim" else [16, 32, 64, 128]
    vim = dict(img_size=64, out_type="featmap", out_indices=(0, 1, 2, 2), norm="ln")
    backbone = dict(type=f"mamba_vision.{system}", arch="test", **(vim if system == "LocalVim" else {}))
    common = dict(channels=8, num_classes=3, norm_cfg=dict(type="BN"), align_corners=False)
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = EncoderDecoder(
            backbone,
            decode_head=dict(type="UPerHead", in_channels=dims, in_index=[0, 1, 2, 3], **common),
            auxiliary_head=dict(type="FCNHead", in_channels=dims[2], in_index=2, **common),
            test_cfg=dict(mode="whole"),
        ).eval()
    assert model(torch.randn(1, 3, 64, 96)).shape[1] == 3


@pytest.mark.parametrize(
    ("system", "options", "message"),
    [
        ("LocalVim", dict(arch="huge"), "unknown arch 'huge'"),
        ("LocalVim", dict(arch=dict(width=3)), "unknown settings width"),
        ("LocalVim", dict(class_token="head"), "class_token: found 'head'"),
        ("LocalVim", dict(out_type="cls_token"), "out_type: found 'cls_token' with class_token='none'"),
        ("LocalVim", dict(out_type="map"), "out_type: found 'map'"),
        ("LocalVim", dict(class_token="middle", rope=True), "rope: found True"),
        ("LocalVim", dict(out_indices=(0, 1)), "out_indices: found"),
        ("LocalVim", dict(norm="group"), "norm: found 'group'"),
        ("LocalVim", dict(directions="local_vim"), "'local_vim' for 20 layers, expected 3"),
        ("LocalVim", dict(directions=["h", "v"]), "directions: found a list for 2 layers, expected 3"),
        ("LocalVim", dict(directions="h w0"), "directions are"),
        ("LocalVim", dict(directions="h", search=True), "directions and search: found both"),
        ("LocalVMamba", dict(directions="h", scan="cross"), "directions and scan: found both"),
        ("LocalVMamba", dict(search=True, candidates=("h", "x")), "directions are"),
        ("LocalVMamba", dict(arch=dict(dims=[8, 16], depths=[1, 1, 1]), out_indices=(0,)), "dims: found 2 widths"),
        ("LocalVMamba", dict(out_indices=(4,)), "out_indices: found"),
        ("LocalVMamba", dict(arch=dict(dims=2, depths=[1]), out_indices=(0,)), "channels: found 4"),
    ],
)
def test_bad_options(system, options, message):
    with pytest.raises(ValueError, match=message):
        small(system, **options)


def test_image_smaller_than_a_patch():
    with pytest.raises(ValueError, match=r"image: found \(3, 64\)"):
        small("LocalVMamba")(torch.randn(1, 3, 3, 64))
