"""Vim against the published implementation, and what a user of the backbone expects beside that."""

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.models import ImageClassifier
from mmseg.models import EncoderDecoder
from recorded import recorded

from mamba_vision.checkpoints import CheckpointError, load_published
from mamba_vision.kernels import selective_scan
from mamba_vision.models.backbones.vim import ARCHS, PARAMETERS, Vim
from mamba_vision.models.layers.add_norm_block import AddNormBlock
from mamba_vision.models.layers.class_tokens import resize_with_class_rows
from mamba_vision.models.mixers import BidirectionalMamba
from mamba_vision.registry import MODELS

READ_OUT = {"mean": "avg_featmap", "none": "last_token", "max": "raw", "all": "raw"}
BATCH_COUNTS = ("**num_batches_tracked",)  # recorded cases leave them out


def mixer_options(kw: dict) -> dict:
    """Published options of the mixer, as its own constructor or the network's `ssm_cfg` has them, in our words."""
    same = ["d_state", "d_conv", "expand", "dt_rank", "conv_bias", "bias"]
    same += ["dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor"]
    ours = dict(halve=kw["if_divide_out"], layer_scale=kw.get("init_layer_scale"))
    ours |= {name: kw[name] for name in same if name in kw} | (kw.get("ssm_cfg") or {})
    kind = "v1" if kw.get("if_bimamba") else kw["bimamba_type"]
    return {**ours, "scan": {"type": "raster"}} if kind == "none" else {**ours, "bimamba": kind}


def backbone_config(kw: dict, **more) -> dict:
    """Config of our backbone for a recorded case's published options."""
    token = "none" if not kw["if_cls_token"] else "head"
    if token != "none" and kw.get("use_double_cls_token"):
        token = "head_tail"
    elif token != "none" and kw.get("use_middle_cls_token"):
        token = "middle"
    options = dict(
        type="mamba_vision.Vim",
        arch=dict(embed_dims=kw["embed_dim"], num_layers=kw["depth"], stride=kw["stride"]),
        img_size=kw["img_size"],
        patch_size=kw["patch_size"],
        in_channels=kw.get("channels", 3),
        class_token=token,
        out_type=READ_OUT[kw["final_pool_type"]] if token == "none" else "cls_token",
        abs_pos=kw["if_abs_pos_embed"],
        rope=kw["if_rope"],
        rope_residual=kw["if_rope_residual"],
        rope_extent=kw["pt_hw_seq_len"],
        flip_ratio=max(kw.get("flip_img_sequences_ratio", 0), 0),
        pairs=kw["if_bidirectional"],
        mixer=mixer_options(kw),
        norm="rms" if kw["rms_norm"] else "ln",
        norm_eps=kw["norm_epsilon"],
        residual_in_fp32=kw["residual_in_fp32"],
        drop_rate=kw.get("drop_rate", 0.0),
        drop_path_rate=kw["drop_path_rate"],
    )
    return {**options, **more}


def segmentation_config(kw: dict) -> dict:
    """As `backbone_config`, with the published constructor's slots as they are: shifted, see the cases' notes."""
    return backbone_config(
        {**kw, "if_cls_token": False, "d_state": kw["in_chans"], "channels": kw["num_classes"]},
        out_type="featmap",
        out_indices=kw["out_indices"],
        features="residual" if kw["use_residual_as_feature"] else "hidden",
        last_feature=kw["last_layer_process"].replace(" & ", "_"),
        pyramid=kw["if_fpn"],
    )


def classifier(backbone: dict, classes: int, pool: str = "mean") -> ImageClassifier:
    of_tokens = backbone.get("out_type") == "raw" and pool == "max"
    kind = "mamba_vision.TokenMaxClsHead" if of_tokens else "LinearClsHead"
    backbone = MODELS.build(backbone)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return ImageClassifier(backbone, head=dict(type=kind, num_classes=classes, in_channels=backbone.embed_dims))


def gradients(case, model: torch.nn.Module, names: dict[str, str], **outputs) -> dict[str, torch.Tensor]:
    """Gradients of the case's loss by published name; `names`: published name -> ours."""
    if not case.gradients:
        return {}
    case.loss(**outputs).backward()
    parameters = dict(model.named_parameters())
    return {name: parameters[names[name]].grad for name in case.gradients}


@pytest.mark.parametrize("name", recorded("vim", "Mamba"))
def test_mixer(golden, name):
    case = golden(f"vim/{name}")
    kw = case.source["kwargs"]
    mixer = BidirectionalMamba(kw["d_model"], **mixer_options(kw))
    names = load_published(mixer, case.state_dict()).loaded
    y = mixer(case.inputs()["x"])
    case.check(gradients(case, mixer, names, y=y), y=y)


@pytest.mark.parametrize("name", recorded("vim", "create_block"))
def test_block(golden, name):
    case = golden(f"vim/{name}")
    kw = case.source["kwargs"]
    mixer = dict(type="BidirectionalMamba", **mixer_options(kw))
    norm = "rms" if kw["rms_norm"] else "ln"
    block = AddNormBlock(kw["d_model"], mixer, norm, kw["norm_epsilon"], residual_in_fp32=kw["residual_in_fp32"])
    names = load_published(block, case.state_dict()).loaded
    inputs = case.inputs()
    hidden, residual = block(inputs["x"], inputs.get("residual"))
    case.check(gradients(case, block, names, hidden=hidden, residual=residual), hidden=hidden, residual=residual)


@pytest.mark.parametrize("name", recorded("vim", "VisionMamba"))
def test_classifier(golden, name):
    case = golden(f"vim/{name}")
    kw, call = case.source["kwargs"], case.source.get("call", {})
    model = classifier(backbone_config(kw), kw["num_classes"], kw["final_pool_type"]).eval()
    names = load_published(model, case.state_dict()).loaded
    assert sum(p.numel() for p in model.parameters()) == case.parameters

    taps = {}
    for index in call.get("taps", ()):
        hook = lambda _, __, out, i=index: taps.update({f"hidden_{i}": out[0], f"residual_{i}": out[1]})  # noqa: E731
        model.backbone.layers[index].register_forward_hook(hook)
    outputs = {"logits": model(case.inputs()["x"])}
    if call.get("features"):
        outputs["features"] = model.extract_feat(case.inputs()["x"])[-1]
    rows = call.get("tap_tokens", slice(None))
    outputs |= {key: tap[:, rows] for key, tap in taps.items()}
    case.check(gradients(case, model, names, **outputs), **outputs)


@pytest.mark.parametrize("name", recorded("vim", "VisionMambaSeg"))
def test_dense_features(golden, name):
    case = golden(f"vim/{name}")
    model = MODELS.build(segmentation_config(case.source["kwargs"])).eval()
    names = load_published(model, case.state_dict(), skip=BATCH_COUNTS).loaded
    maps = {f"feature_{i}": m for i, m in enumerate(model(case.inputs()["x"]))}
    assert sum(p.numel() for p in model.parameters()) == case.parameters
    case.check(gradients(case, model, names, **maps), **maps)


@pytest.mark.parametrize("name", recorded("vim", "VisionMambaSeg+UPerHead+FCNHead"))
def test_upernet(golden, name):
    case = golden(f"vim/{name}")
    kw = case.source["kwargs"]
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = EncoderDecoder(
            segmentation_config(kw["backbone"]),
            decode_head=dict(type="UPerHead", **kw["decode_head"]),
            auxiliary_head=dict(type="FCNHead", **kw["auxiliary_head"]),
            test_cfg=dict(mode="whole"),
        ).eval()
    load_published(model, case.state_dict(), skip=BATCH_COUNTS)
    maps = model.extract_feat(case.inputs()["x"])
    outputs = {name: maps[int(name[-1])] for name in case.outputs if name.startswith("feature")}
    case.check(decode=model.decode_head(maps), auxiliary=model.auxiliary_head(maps), **outputs)


@pytest.mark.parametrize("name", recorded("vim", "interpolate_pos_embed"))
def test_published_position_resize(golden, name):
    case = golden(f"vim/{name}")
    kw = case.source["kwargs"]
    sides = [round(tokens**0.5) for tokens in (kw["old_tokens"] - kw["extra_tokens"], kw["num_patches"])]
    old, new = ((side, side) for side in sides)
    place = ("none", "middle", "head_tail")[kw["extra_tokens"]]
    table = case.state_dict()["pos_embed"]
    case.check(pos_embed=resize_with_class_rows(table, old, new, place, published=True))


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameter_counts(name):
    with torch.device("meta"):
        model = classifier(dict(type="mamba_vision.Vim", arch=name), 1000)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert set(PARAMETERS) == set(ARCHS) - {"test"}


@pytest.mark.parametrize("size", [(64, 64), (50, 83), (16, 129)])
def test_any_image_size(size):
    model = Vim("test", img_size=64, out_type="featmap", out_indices=(1, 3), features="residual", pyramid=False)
    maps = model(torch.randn(2, 3, *size))
    assert [tuple(m.shape) for m in maps] == [(2, 32, size[0] // 16, size[1] // 16)] * 2


def test_pyramid_strides():
    model = Vim("test", img_size=64, class_token="none", out_type="featmap", out_indices=(0, 1, 2, 3), pyramid=True)
    assert [m.shape[-1] for m in model(torch.randn(2, 3, 64, 64))] == [16, 8, 4, 2]
    model = Vim("test", img_size=64, stride=8, patch_size=8, out_type="featmap", pyramid=True)
    assert [m.shape[-1] for m in model(torch.randn(2, 3, 64, 64))] == [16, 8, 4, 2]


@pytest.mark.parametrize("scan", ["cross", dict(type="local", directions=("h", "w2", "w7_flip")), "hilbert"])
@pytest.mark.parametrize("token", ["middle", "none"])
def test_any_scan_order(scan, token):
    scan = dict(type=scan) if isinstance(scan, str) else scan
    read_out = "avg_featmap" if token == "none" else "cls_token"
    model = Vim("test", img_size=64, scan=scan, class_token=token, out_type=read_out)
    (feature,) = model(torch.randn(2, 3, 64, 48))
    feature.square().mean().backward()
    assert feature.shape == (2, 32)
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("system", ["Vim", "LocalVim", "RSMamba"])
def test_orders_of_lines_are_refused(system):
    model = MODELS.build(dict(type=f"mamba_vision.{system}", arch="test", img_size=64, scan=dict(type="cascade")))
    with pytest.raises(ValueError, match="'cascade', which reads every line of the grid by itself"):
        model(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("system", ["Vim", "VMamba", "LocalVim", "LocalVMamba", "RSMamba"])
def test_orders_with_tokens_that_are_not_there_are_refused(system):
    scan = dict(type="prompted", prompts=2)
    model = MODELS.build(dict(type=f"mamba_vision.{system}", arch="test", scan=scan))
    with pytest.raises(ValueError, match=r"'prompted', which wants tokens \(0, 1\) besides the grid's"):
        model(torch.randn(1, 3, 64, 64))


def test_an_order_that_knows_the_class_token_is_taken_as_it_is():
    scan = dict(type="local", directions=("h", "w2_flip"))
    knowing, told = (Vim("test", img_size=64, scan={**scan, "class_token": knows}).eval() for knows in (True, False))
    told.load_state_dict(knowing.state_dict())
    x = torch.randn(1, 3, 64, 48)
    torch.testing.assert_close(knowing(x), told(x))


def test_class_token_at_random():
    model = Vim("test", img_size=64, class_token="random")
    assert model(torch.randn(2, 3, 64, 64))[0].shape == (2, 32)


def test_recomputing_changes_nothing():
    x = torch.randn(2, 3, 64, 64)
    plain = Vim("test", img_size=64)
    saving = Vim("test", img_size=64, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    for model in (plain, saving):
        model.train()(x)[0].square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters()):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_frozen_stages():
    model = Vim("test", img_size=64, frozen_stages=2, drop_path_rate=0.5).train()
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(name.startswith(("layers.2.", "layers.3.", "norm_f.")) for name in free)
    assert not model.layers[1].training and model.layers[2].training


@pytest.mark.parametrize("last_feature", ["none", "add", "add_norm"])
@pytest.mark.parametrize("features", ["hidden", "residual"])
def test_every_trained_parameter_of_dense_models_is_used(features, last_feature):
    """Processes that train together wait for the gradient of each."""
    options = dict(out_type="featmap", out_indices=(1, 3), features=features, last_feature=last_feature)
    model = Vim("test", img_size=64, class_token="none", **options)
    sum(m.square().mean() for m in model(torch.randn(1, 3, 64, 64))).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert model.norm_f.weight.requires_grad is ((features, last_feature) == ("residual", "add_norm"))


def test_start_of_parameters():
    model = Vim(dict(embed_dims=64, num_layers=2), img_size=64)
    mixer = model.layers[0].mixer
    steps = torch.nn.functional.softplus(mixer.dt_proj.bias)
    assert steps.min() > 0.00099 and steps.max() < 0.101
    assert not mixer.dt_proj_b.bias.any() and not model.patch_embed.proj.bias.any()
    bound = 128**-0.5 / 2**0.5
    assert 0.95 * bound < mixer.out_proj.weight.abs().max() <= bound
    assert 0.018 < model.pos_embed.std() < 0.022


def test_layer_depths():
    model = Vim("test", img_size=64)
    depths = {name: model.get_layer_depth(f"backbone.{name}", "backbone.") for name, _ in model.named_parameters()}
    assert depths["cls_token"] == depths["patch_embed.proj.bias"] == (0, 6)
    assert depths["layers.3.norm.weight"] == (4, 6) and depths["norm_f.weight"] == (5, 6)
    assert model.get_layer_depth("head.fc.weight", "backbone.") == (5, 6)
    assert model.no_weight_decay() == {"pos_embed", "cls_token"}


def test_dense_model_takes_a_classifiers_file():
    """The middle token and its row go, the grid is resampled; rows of patches stay in their order."""
    file = {"model": published_file()}
    model = Vim("test", img_size=64, class_token="none", out_type="featmap")
    load_published(model, file)
    table = file["model"]["pos_embed"]
    torch.testing.assert_close(model.pos_embed, torch.cat([table[:, :8], table[:, 9:]], 1))
    larger = Vim("test", img_size=96, class_token="none", out_type="featmap")
    load_published(larger, file)
    assert larger.pos_embed.shape == (1, 36, 32)


def test_initialization_from_a_published_file(tmp_path):
    torch.save({"model": published_file(), "epoch": 1}, tmp_path / "vim.pth")
    init = dict(type="Pretrained", checkpoint=str(tmp_path / "vim.pth"))
    dense = dict(img_size=64, class_token="none", out_type="featmap", out_indices=(0, 1, 2, 3), pyramid=True)
    model = Vim("test", **dense, init_cfg={**init, "skip": ["pyramid.**"]})
    before = model.layers[0].norm.weight.clone()
    torch.save({"model": {**published_file(), "layers.0.norm.weight": before + 1}}, tmp_path / "vim.pth")
    model.init_weights()
    torch.testing.assert_close(model.layers[0].norm.weight, before + 1)
    with pytest.raises(CheckpointError, match=r"missing[\s\S]*pyramid\.fpn1\.0\.weight"):
        Vim("test", **dense, init_cfg=init).init_weights()


@pytest.mark.parametrize("published", [False, True])
def test_finer_stride_from_published_weights(published):
    file = published_file()
    fine = Vim("test", img_size=64, stride=8, position_resize="published" if published else "exact")
    load_published(fine, file)
    kept = (0, 0) if published else (8, 24)  # (row in the file, row in the model) of what is not resampled
    torch.testing.assert_close(fine.pos_embed[:, kept[1]], file["pos_embed"][:, kept[0]])


def published_file() -> dict:
    """What a published classification file of the test arch at 64 x 64 holds."""
    model = Vim("test", img_size=64)
    return {**model.state_dict(), "head.weight": torch.randn(10, 32), "head.bias": torch.randn(10)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(arch="huge"), "unknown arch 'huge'"),
        (dict(arch=dict(width=3)), "unknown settings width"),
        (dict(class_token="back"), "class_token: found 'back'"),
        (dict(class_token="none"), "out_type: found 'cls_token' with class_token='none'"),
        (dict(out_type="map"), "out_type: found 'map'"),
        (dict(out_indices=(7,)), "out_indices: found .*7"),
        (dict(norm="group"), "norm: found 'group'"),
        (dict(pairs=True, out_type="featmap", out_indices=(0, 1)), "out_indices"),
        (dict(pyramid=True), "pyramid: needs out_type='featmap'"),
        (dict(mixer=dict(bimamba="v3")), "bimamba: found 'v3'"),
        (dict(mixer=dict(bimamba="v1", scan=dict(type="cross"))), "4 directions, bimamba 'v1' expects 2"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Vim(**{"arch": "test", "img_size": 64, **options})


def test_image_smaller_than_a_patch():
    with pytest.raises(ValueError, match="found 8 x 64"):
        Vim("test", img_size=64)(torch.randn(1, 3, 8, 64))


@pytest.mark.parametrize("bimamba", ["v1", "v2"])
def test_scan_inputs_give_the_output(bimamba):
    """What a mixer says it scans with, scanned by the plain op, is what it computes."""
    mixer = BidirectionalMamba(32, d_state=4, bimamba=bimamba)
    x = torch.randn(2, 11, 32)
    found = mixer.scan_inputs(x)
    total = 0
    for k, order in enumerate(found.order):
        y = selective_scan(
            found.u[:, k], found.delta[:, k], found.A[k], found.B[:, k], found.C[:, k], found.D[k], z=found.z[:, k]
        )
        total = total + torch.zeros_like(y).index_copy(2, order, y)
    expected = mixer.out_proj(total.transpose(1, 2) / mixer.divisor)
    torch.testing.assert_close(mixer(x), expected, rtol=1e-4, atol=1e-5)


def test_export_keeps_the_image_size_open():
    model = Vim("test", img_size=64, rope=True).eval()
    size = torch.export.Dim.DYNAMIC
    program = torch.export.export(model, (torch.randn(2, 3, 64, 96),), dynamic_shapes=({0: size, 2: size, 3: size},))
    x = torch.randn(1, 3, 112, 80)
    torch.testing.assert_close(program.module()(x), model(x))
