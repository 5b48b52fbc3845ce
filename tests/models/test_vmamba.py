"""VMamba against the published implementation, and what a user of the backbone expects beside that."""

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.models import ImageClassifier
from mmseg.models import EncoderDecoder
from recorded import recorded
from torch import nn

from mamba_vision.checkpoints import load_published
from mamba_vision.kernels import selective_scan
from mamba_vision.models.backbones.vmamba import ARCHS, PARAMETERS, VMamba
from mamba_vision.models.layers.vss_block import VSSBlock
from mamba_vision.models.layers.vss_stems import make_downsample, make_patch_embed
from mamba_vision.models.mixers.vmamba_types import options_of
from mamba_vision.registry import MIXERS
from mamba_vision.scan_orders import Cross, gather_tokens, return_tokens

BATCH_COUNTS = ("**num_batches_tracked",)  # recorded cases leave them out


def last(x: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) to (B, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def first(x: torch.Tensor) -> torch.Tensor:
    """(B, H, W, C) to (B, C, H, W)."""
    return x.permute(0, 3, 1, 2)


def activation_of(kw: dict, name: str, default: str) -> str:
    """Our name of a published activation, which may be a class, 'torch.nn.GELU'."""
    return str(kw.get(name, default)).rpartition(".")[2].lower()


def mixer_of(kw: dict) -> nn.Module:
    """Our mixer with a recorded layer's published options."""
    act = activation_of(kw, "act_layer", "silu")
    options = dict(d_state=kw["d_state"], dt_rank=kw.get("dt_rank", "auto"), ssm_ratio=kw["ssm_ratio"], act=act)
    options |= dict(
        d_conv=kw.get("d_conv", 3), conv_bias=kw.get("conv_bias", True), ssm_init=kw.get("initialize", "v0")
    )
    return MIXERS.build({"d_model": kw["d_model"], **options, **options_of(kw["forward_type"])})


def settings_of(kw: dict) -> dict:
    """Our settings for a recorded network's published options."""
    same = "dims depths ssm_ratio ssm_conv ssm_conv_bias ssm_init forward_type mlp_ratio gmlp norm_layer patch_norm"
    renamed = {
        "ssm_d_state": "d_state",
        "ssm_dt_rank": "dt_rank",
        "ssm_act_layer": "ssm_act",
        "mlp_act_layer": "mlp_act",
        "patchembed_version": "patch_embed",
        "downsample_version": "downsample",
    }
    arch = {name: kw[name] for name in same.split()} | {ours: kw[theirs] for theirs, ours in renamed.items()}
    more = dict(img_size=kw["imgsize"] if kw["posembed"] else None, patch_size=kw["patch_size"])
    more |= dict(ssm_drop=kw["ssm_drop_rate"], mlp_drop=kw["mlp_drop_rate"])
    return dict(arch=arch, in_channels=kw["in_chans"], **more)


def classifier(classes: int, **options) -> ImageClassifier:
    backbone = VMamba(**options, out_indices=(-1,))
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        head = dict(type="LinearClsHead", num_classes=classes, in_channels=backbone.embed_dims)
        return ImageClassifier(backbone, neck=dict(type="GlobalAveragePooling"), head=head)


def gradients(case, model: nn.Module, names: dict[str, str], **outputs) -> dict[str, torch.Tensor]:
    """Gradients of the case's loss by published name; `names`: published name -> ours."""
    if not case.gradients:
        return {}
    case.loss(**outputs).backward()
    parameters = dict(model.named_parameters())
    shapes = {name: shape for name, shape, *_ in case.state}
    return {name: parameters[names[name]].grad.reshape(shapes[name]) for name in case.gradients}


@pytest.mark.parametrize("mode", ["cross", "unidi", "bidi", "rotations"])
def test_cross_scan(golden, mode):
    """The recorded permutations and sums; both layouts of the published code are one here."""
    case = golden("vmamba/cross_scan")
    x, y, number = case.inputs()["x"], case.inputs()["y"], ("cross", "unidi", "bidi", "rotations").index(mode)
    orders = Cross(mode)(tuple(x.shape[2:]))
    scanned_BKLC = gather_tokens(last(x).flatten(1, 2), orders)
    y_BKLC = y.flatten(3).transpose(2, 3)
    merged_BLC = return_tokens(y_BKLC, orders).sum(1)
    for given in ("cf", "cl"):
        name = f"scan_mode{number}_{given}_to"
        case.check(**{f"{name}_cf": scanned_BKLC.transpose(2, 3), f"{name}_cl": scanned_BKLC.transpose(1, 2)})
        merged = merged_BLC if given == "cl" else merged_BLC.transpose(1, 2)
        case.check(**{f"merge_mode{number}_{given}_to_{out}": merged for out in ("cf", "cl")})
    if f"scan1b1_mode{number}" in case.outputs:  # every direction its own map
        x4 = case.inputs()["x4"].permute(0, 1, 3, 4, 2).flatten(2, 3)
        own = torch.stack([gather_tokens(x4[:, k], orders)[:, k] for k in range(4)], 1)
        case.check(**{f"scan1b1_mode{number}": own.transpose(2, 3)})
    if f"merge1b1_mode{number}" in case.outputs:
        case.check(**{f"merge1b1_mode{number}": return_tokens(y_BKLC, orders).transpose(2, 3)})


def test_grouped_scan(golden):
    case = golden("vmamba/selective_scan")
    given = {name: value.requires_grad_() for name, value in case.state_dict().items()}
    y = selective_scan(**given, delta_softplus=True)
    case.loss(y=y).backward()
    case.check({name: value.grad for name, value in given.items()}, y=y)


@pytest.mark.parametrize("name", recorded("vmamba", "SS2D", without=("outnorms",)))
def test_mixer(golden, name):
    case = golden(f"vmamba/{name}")
    kw = case.source["kwargs"]
    net = nn.Module()  # a mixer where the network's table of names expects one
    net.layers = nn.ModuleList([nn.ModuleDict({"blocks": nn.ModuleList([nn.ModuleDict({"op": mixer_of(kw)})])})])
    net.published_renames, net.fit_published = VMamba.published_renames, VMamba.fit_published.__get__(net)
    prefix = "layers.0.blocks.0.op."
    names = load_published(net, {prefix + key: value for key, value in case.state_dict().items()}).loaded
    mixer, x = net.layers[0]["blocks"][0]["op"], case.inputs()["x"]
    y = first(mixer(last(x))) if kw["channel_first"] else mixer(x)
    names = {theirs.removeprefix(prefix): ours for theirs, ours in names.items()}
    case.check(gradients(case, net, names, y=y), y=y)
    assert sum(p.numel() for p in net.parameters()) == case.parameters


def test_output_norms(golden):
    case = golden("vmamba/ss2d_outnorms")
    kw, x, outputs = case.source["kwargs"], case.inputs()["x"], {}
    for tag in ("onnone", "ondwconv3", "oncnorm", "onsoftmax", "onsigmoid"):
        for layout in ("cf", "cl"):
            mixer = mixer_of({**kw, "forward_type": f"v05_{tag}_noz"})
            load_published(mixer, case.state_dict(), prefix=f"{tag}_{layout}.")
            y = mixer(last(x))
            outputs[f"{tag}_{layout}"] = first(y) if layout == "cf" else y
    case.check(**outputs)


@pytest.mark.parametrize("name", recorded("vmamba", "VSSBlock"))
def test_block(golden, name):
    case = golden(f"vmamba/{name}")
    kw = case.source["kwargs"]
    mixer = dict(d_state=kw["ssm_d_state"], ssm_ratio=kw["ssm_ratio"], conv_bias=kw.get("ssm_conv_bias", True))
    mixer |= dict(dt_rank=kw.get("ssm_dt_rank", "auto"), d_conv=kw.get("ssm_conv", 3))
    mixer |= dict(ssm_init=kw.get("ssm_init", "v0"), act=activation_of(kw, "ssm_act_layer", "silu"))
    mixer |= options_of(kw["forward_type"])
    options = dict(mlp_ratio=kw["mlp_ratio"], gmlp=kw.get("gmlp", False), post_norm=kw.get("post_norm", False))
    options |= dict(mlp_act=activation_of(kw, "mlp_act_layer", "gelu"))
    norm = "bn" if "Batch" in kw["norm_layer"] else "ln"
    block = VSSBlock(kw["hidden_dim"], mixer if kw["ssm_ratio"] > 0 else None, norm, **options)
    names = load_published(block, case.state_dict()).loaded
    x = case.inputs()["x"]
    y = first(block(last(x))) if kw["channel_first"] else block(x)
    case.check(gradients(case, block, names, y=y), y=y)


def test_stems(golden):
    case = golden("vmamba/stems")
    inputs, outputs = case.inputs(), {}
    for version in ("v1", "v2", "v3"):
        for layout in ("cf", "cl"):
            back = first if layout == "cf" else (lambda y: y)
            if version != "v3":
                embed = make_patch_embed(version, 3, 16, 4, "ln")
                load_published(embed, case.state_dict(), prefix=f"embed_{version}_{layout}.")
                outputs[f"embed_{version}_{layout}"] = back(embed(inputs["x"]))
            down = make_downsample(version, 16, 24, "ln")
            load_published(down, case.state_dict(), prefix=f"down_{version}_{layout}.")
            even = version == "v1" and layout == "cf"
            outputs[f"down_{version}_{layout}" + even * "_even"] = back(down(last(inputs["g" if even else "f"])))
    case.check(**outputs)


@pytest.mark.parametrize("name", recorded("vmamba", "VSSM"))
def test_classifier(golden, name):
    case = golden(f"vmamba/{name}")
    kw = case.source["kwargs"]
    model = classifier(kw["num_classes"], **settings_of(kw), drop_path_rate=kw["drop_path_rate"]).eval()
    names = load_published(model, {"model": case.state_dict()}, skip=BATCH_COUNTS).loaded
    assert sum(p.numel() for p in model.parameters()) == case.parameters

    outputs, backbone = {}, model.backbone
    taps = {"patch_embed": backbone.patch_embed}
    taps |= {f"layer{i}": stage.downsample for i, stage in enumerate(backbone.layers)}
    for key, module in taps.items():
        if key in case.outputs:
            turn = first if kw["norm_layer"] == "ln2d" else (lambda y: y)
            module.register_forward_hook(lambda _, __, out, key=key, turn=turn: outputs.update({key: turn(out)}))
    outputs["logits"] = model(case.inputs()["x"])
    case.check(gradients(case, model, names, **outputs), **outputs)


@pytest.mark.parametrize("name", recorded("vmamba", "Backbone_VSSM"))
def test_dense_features(golden, name):
    case = golden(f"vmamba/{name}")
    kw = case.source["kwargs"]
    model = VMamba(**settings_of(kw), out_indices=kw["out_indices"]).eval()
    names = load_published(model, case.state_dict(), skip=BATCH_COUNTS).loaded
    assert sum(p.numel() for p in model.parameters()) == case.parameters
    maps = model(case.inputs()["x"])
    outputs = {f"out{i}": m for i, m in zip(kw["out_indices"], maps)}
    case.check(gradients(case, model, names, **outputs), **outputs)
    assert all(m.is_contiguous() for m in maps)


def test_without_out_indices_the_last_map_comes_unnormed():
    model, x = VMamba("test", out_indices=()), torch.randn(1, 3, 36, 52)
    kept = []
    model.layers[-1].blocks[-1].register_forward_hook(lambda _, __, out: kept.append(out))
    (found,) = model(x)
    assert torch.equal(found, first(kept[0])) and not any("outnorm" in name for name in model.state_dict())


def test_upernet(golden):
    case = golden("vmamba/upernet_micro")
    kw = case.source["kwargs"]
    dims = [kw["dims"] * 2**i for i in range(4)]
    common = dict(num_classes=kw["num_classes"], norm_cfg=dict(type="BN"), align_corners=False)
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = EncoderDecoder(
            dict(type="mamba_vision.VMamba", dims=kw["dims"], depths=kw["depths"], ssm_ratio=kw["ssm_ratio"]),
            decode_head=dict(type="UPerHead", in_channels=dims, in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6),
                             channels=kw["channels"], **common),
            auxiliary_head=dict(type="FCNHead", in_channels=dims[2], in_index=2, num_convs=1, concat_input=False,
                                channels=kw["aux_channels"], **common),
            test_cfg=dict(mode="whole"),
        ).eval()  # fmt: skip
    load_published(model, case.state_dict(), skip=BATCH_COUNTS)
    x = case.inputs()["x"]
    maps = model.extract_feat(x)
    decode, auxiliary = model.decode_head(maps), model.auxiliary_head(maps)
    resized = nn.functional.interpolate(decode, x.shape[2:], mode="bilinear", align_corners=False)
    case.check(decode=decode, auxiliary=auxiliary, seg_logits=resized)


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameter_counts(name):
    with torch.device("meta"):
        model = classifier(1000, arch=name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    aliases = {"tiny", "small", "base"}  # of the s1 variants; of small_m2 and base_m2 no count is published
    assert set(PARAMETERS) | {"small_m2", "base_m2"} == {n for n in ARCHS if not n.startswith("test")} - aliases


@pytest.mark.parametrize("arch", ["test", "test_vanilla"])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (61, 38)])
def test_any_image_size(arch, size):
    model = VMamba(arch)
    maps = model(torch.randn(2, 3, *size))
    sum(m.square().mean() for m in maps).backward()
    half = lambda n: (n - 1) // 2 + 1  # noqa: E731
    grids = [tuple(half(half(n)) if arch == "test" else n // 4 for n in size)]
    for _ in range(3):
        grids.append(tuple(half(n) for n in grids[-1]))
    assert [tuple(m.shape) for m in maps] == [(2, 16 * 2**i, *grid) for i, grid in enumerate(grids)]
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("arch", ["test", dict(ARCHS["test"], forward_type="m0_noz", ssm_init="v2")])
@pytest.mark.parametrize("scan", ["hilbert", "bidirectional", dict(type="local", directions=("h", "v_flip", "w2"))])
def test_any_scan_order(arch, scan):
    scan = dict(type=scan) if isinstance(scan, str) else scan
    model = VMamba(arch, scan=scan)
    assert [m.shape[1] for m in model(torch.randn(1, 3, 36, 52))] == [16, 32, 64, 128]


@pytest.mark.parametrize("kind", ["SS2D", "SSD2D"])
@pytest.mark.parametrize("along", ["rows", "columns"])
def test_orders_of_lines_read_each_line_by_itself(kind, along):
    """A map's lines, one after the other, give what the map gives; nothing of it is left out."""
    options = dict(type=kind, d_model=16, d_state=3)
    lines = MIXERS.build(dict(**options, scan=dict(type="cascade", along=along)))
    whole = MIXERS.build(dict(**options, scan=dict(type="bidirectional")))
    whole.load_state_dict(lines.state_dict())
    x = torch.randn(2, 3, 5, lines.d_inner)
    axis = 1 if along == "rows" else 2
    one_by_one = torch.cat([whole.mix(line) for line in x.split(1, axis)], axis)
    torch.testing.assert_close(lines.mix(x), one_by_one, rtol=1e-4, atol=1e-5)


def test_positions_follow_the_image():
    model = VMamba("test", img_size=64)
    assert model.pos_embed.shape == (1, 16, 16, 16) and model.no_weight_decay() == {"pos_embed"}
    assert model(torch.randn(1, 3, 40, 72))[0].shape == (1, 16, 10, 18)
    larger = VMamba("test", img_size=96)
    load_published(larger, model.state_dict())
    assert larger.pos_embed.shape == (1, 16, 24, 24)


def test_recomputing_changes_nothing():
    x = torch.randn(2, 3, 32, 32)
    plain, saving = VMamba("test"), VMamba("test", with_cp=True)
    saving.load_state_dict(plain.state_dict())
    for model in (plain, saving):
        model.train()(x)[-1].square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters()):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_frozen_stages():
    model = VMamba("test", frozen_stages=2).train()
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(name.startswith(("layers.2.", "layers.3.", "outnorm2", "outnorm3")) for name in free)
    assert not model.layers[1].training and model.layers[2].training


def test_layer_depths():
    model = VMamba("test")
    depth = lambda name: model.get_layer_depth(f"backbone.{name}", "backbone.")  # noqa: E731
    assert depth("patch_embed.0.bias") == (0, 7)
    assert depth("layers.0.blocks.0.norm.weight") == (1, 7) and depth("layers.0.downsample.1.weight") == (2, 7)
    assert depth("layers.2.blocks.1.op.Ds") == (4, 7) and depth("outnorm0.weight") == (6, 7)
    assert model.get_layer_depth("decode_head.x", "backbone.") == (6, 7)


def test_dense_model_takes_a_classifiers_file():
    """The classifier's norm and head are left out; the output norms keep their start."""
    source = classifier(10, arch="test")
    file = {name.removeprefix("backbone."): value for name, value in source.state_dict().items()}
    file = {
        name.replace("outnorm3", "classifier.norm").replace("head.fc", "classifier.head"): v for name, v in file.items()
    }
    model = VMamba("test")
    report = load_published(model, {"model": file}, skip=("outnorm*.**",))
    assert len(report.skipped) == 8
    torch.testing.assert_close(model.layers[3].blocks[0].op.Ds, source.backbone.layers[3].blocks[0].op.Ds)


@pytest.mark.parametrize("ssm_init", ["v0", "v1", "v2"])
def test_start_of_parameters(ssm_init):
    model = VMamba(dict(dims=64, depths=(1,), ssm_ratio=2.0, d_state=4), out_indices=(0,), ssm_init=ssm_init)
    op = model.layers[0].blocks[0].op
    assert (op.Ds == 1).all() and 0.9 * 128**-0.5 < op.x_proj_weight.abs().max() <= 128**-0.5
    steps = nn.functional.softplus(op.dt_projs_bias)
    if ssm_init == "v0":
        assert steps.min() > 0.00099 and steps.max() < 0.101
        torch.testing.assert_close(op.A_logs.exp()[7], torch.arange(1.0, 5))
    elif ssm_init == "v1":
        assert 0.9 < op.A_logs.std() < 1.1 and 0.08 < op.dt_projs_bias.std() < 0.12
    else:
        assert not op.A_logs.any() and 0 <= op.dt_projs_bias.min() <= op.dt_projs_bias.max() <= 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(arch="huge"), "unknown arch 'huge'"),
        (dict(arch=dict(width=3)), "unknown settings width"),
        (dict(arch=dict(dims=[8, 16], depths=[1, 1, 1]), out_indices=(0,)), "dims: found 2 widths"),
        (dict(out_indices=(4,)), "out_indices: found"),
        (dict(norm_layer="gn"), "norm_layer: found 'gn'"),
        (dict(patch_embed="v7"), "patch_embed: found 'v7'"),
        (dict(downsample="v7"), "downsample: found 'v7'"),
        (dict(forward_type="xv1a"), "forward_type: found 'xv1a'"),
        (dict(forward_type="v05_nozz"), "forward_type: found 'v05_nozz'"),
        (dict(forward_type="v0_noz"), "forward_type: found 'v0_noz'"),
        (dict(ssm_init="v9"), "ssm_init: found 'v9'"),
        (dict(forward_type="m0_noz"), "ssm_init: found 'v0'"),
        (dict(forward_type="v052dc_noz", scan=dict(type="cross")), "scan: found"),
        (dict(ssm_act="tanh"), "activation: found 'tanh'"),
        (dict(scan=dict(type="nowhere")), "'nowhere' is not known"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        VMamba(**{"arch": "test", **options})


def test_scan_inputs_give_the_output():
    """What a mixer says it scans with, scanned by the plain op and put back, is what it merges."""
    mixer = MIXERS.build(dict(type="SS2D", d_model=16, d_state=3))
    x = torch.randn(2, 3, 5, 16)
    found = mixer.scan_inputs(x)
    u, delta, A, B, C, D = found.u, found.delta, found.A, found.B, found.C, found.D
    y = [selective_scan(u[:, k], delta[:, k], A[k], B[:, k], C[:, k], D[k]) for k in range(4)]
    orders = mixer.scan((3, 5))
    merged = return_tokens(torch.stack(y, 1).transpose(2, 3), orders).sum(1).view(2, 3, 5, -1)
    torch.testing.assert_close(mixer.mix(mixer.before_scan(x)[0]), merged, rtol=1e-4, atol=1e-5)
