"""LocalMamba against the published implementation: layers, networks, dense features, supernets."""

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.models import ImageClassifier
from recorded import recorded
from torch import nn

from mamba_vision.checkpoints import load_published
from mamba_vision.kernels import selective_scan
from mamba_vision.models.backbones import LocalVim, LocalVMamba
from mamba_vision.models.backbones.local_vim import ARCHS as LOCAL_VIM_ARCHS
from mamba_vision.models.mixers import BiAttention, LocalSS2D, MultiMamba
from mamba_vision.models.necks import SimpleFPN
from mamba_vision.scan_orders import return_tokens


def vim_settings(kw: dict) -> dict:
    """Our settings for a recorded LocalVim's published options."""
    search = kw["directions"] is None
    return dict(
        arch=dict(embed_dims=kw["embed_dim"], num_layers=kw["depth"], search=search),
        directions=kw["directions"],
        img_size=kw["img_size"],
        patch_size=kw.get("patch_size", 16),
        in_channels=kw.get("channels", 3),
        class_token="middle" if kw.get("use_middle_cls_token") else "none",
        norm="rms" if kw["rms_norm"] else "ln",
        norm_eps=kw.get("norm_epsilon", 1e-5),
        rope=kw["if_rope"],
        rope_residual=kw["if_rope_residual"],
        residual_in_fp32=kw["residual_in_fp32"],
    )


def vmamba_settings(kw: dict) -> dict:
    searching = dict(search=True) if kw["directions"] is None else dict(directions=kw["directions"])
    more = dict(patch_size=kw.get("patch_size", 4), in_channels=kw.get("in_chans", 3))
    return dict(arch=None, dims=kw["dims"], depths=kw["depths"], **searching, **more)


def classifier(backbone: nn.Module, classes: int) -> ImageClassifier:
    neck = dict(type="GlobalAveragePooling") if isinstance(backbone, LocalVMamba) else None
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        head = dict(type="LinearClsHead", num_classes=classes, in_channels=backbone.embed_dims)
        return ImageClassifier(backbone, neck=neck, head=head).eval()


def gradients(case, model: nn.Module, names: dict[str, str], **outputs) -> dict[str, torch.Tensor]:
    """Gradients of the case's loss by published name; `names`: published name -> ours."""
    if not case.gradients:
        return {}
    case.loss(**outputs).backward()
    parameters = dict(model.named_parameters())
    return {name: parameters[names[name]].grad for name in case.gradients}


def test_channel_attention(golden):
    case = golden("localmamba/bi_attn")
    attn = BiAttention(case.source["kwargs"]["in_channels"])
    names = load_published(attn, case.state_dict()).loaded
    out = attn(case.inputs()["tokens"])
    case.check(gradients(case, attn, names, output=out), output=out)


@pytest.mark.parametrize("name", recorded("localmamba", "MultiMamba"))
def test_vim_layer(golden, name):
    case = golden(f"localmamba/{name}")
    kw = case.source["kwargs"]
    scan = dict(type="local", class_token=kw.get("use_middle_cls_token", False))
    scan |= dict(directions=kw["directions"]) if kw["directions"] else {}
    options = {name: kw[name] for name in ("d_state", "d_conv", "expand", "dt_rank") if name in kw}
    mixer = MultiMamba(kw["d_model"], scan=scan, search=not kw["directions"], **options)
    names = load_published(mixer, case.state_dict()).loaded
    assert all(ours == theirs for theirs, ours in names.items())
    assert sum(p.numel() for p in mixer.parameters()) == case.parameters
    out = mixer(case.inputs()["tokens"], mixer.scan(kw["token_size"]))
    case.check(gradients(case, mixer, names, output=out), output=out)


@pytest.mark.parametrize("name", recorded("localmamba", "SS2D"))
def test_vmamba_layer(golden, name):
    case = golden(f"localmamba/{name}")
    kw = case.source["kwargs"]
    scan = dict(type="local", directions=kw["directions"]) if kw["directions"] else None
    options = {name: kw[name] for name in ("d_state", "dt_rank", "d_conv", "conv_bias") if name in kw}
    mixer = LocalSS2D(kw["d_model"], scan=scan, search=not kw["directions"], **options)
    names = load_published(mixer, case.state_dict()).loaded
    assert sum(p.numel() for p in mixer.parameters()) == case.parameters
    out = mixer(case.inputs()["tokens"])
    case.check(gradients(case, mixer, names, output=out), output=out)


LOCAL_VIMS = [f"local_vim_{name}" for name in LOCAL_VIM_ARCHS]


@pytest.mark.parametrize("name", recorded("localmamba", "VisionMamba", *LOCAL_VIMS))
def test_vim_classifier(golden, name):
    case = golden(f"localmamba/{name}")
    kw = case.source["kwargs"]
    backbone = LocalVim(**vim_settings(kw)) if "embed_dim" in kw else LocalVim(name.removeprefix("local_vim_"))
    model = classifier(backbone, case.outputs["logits"]["shape"][1])
    names = load_published(model, {"state_dict": case.state_dict()}, skip=["backbone.rope.*"]).loaded
    assert sum(p.numel() for p in model.parameters()) == case.parameters

    outputs = {}
    for i, layer in enumerate(backbone.layers):
        if f"block{i}" in case.outputs:
            layer.register_forward_hook(lambda _, __, out, i=i: outputs.update({f"block{i}": out[0]}))
    (outputs["features"],) = backbone(case.inputs()["image"])
    outputs["logits"] = model.head((outputs["features"],))
    case.check(gradients(case, model, names, **outputs), **outputs)


@pytest.mark.parametrize("name", recorded("localmamba", "VSSM", "local_vssm_tiny", "local_vssm_small"))
def test_vmamba_classifier(golden, name):
    case = golden(f"localmamba/{name}")
    kw = case.source["kwargs"]
    settings = vmamba_settings(kw) if "dims" in kw else dict(arch=name.removeprefix("local_vssm_"))
    backbone = LocalVMamba(**settings, out_indices=(-1,))
    model = classifier(backbone, case.outputs["logits"]["shape"][1])
    names = load_published(model, {"model": case.state_dict()}).loaded
    assert sum(p.numel() for p in model.parameters()) == case.parameters

    outputs = {}
    for i, stage in enumerate(backbone.layers):
        if f"stage{i}" in case.outputs:
            stage.downsample.register_forward_hook(lambda _, __, out, i=i: outputs.update({f"stage{i}": out}))
    outputs["logits"] = model(case.inputs()["image"])
    case.check(gradients(case, model, names, **outputs), **outputs)


@pytest.mark.parametrize("name", recorded("localmamba", "Backbone_LocalVisionMamba"))
def test_vim_dense_features(golden, name):
    case = golden(f"localmamba/{name}")
    kw = case.source["kwargs"]
    model = LocalVim(**vim_settings(kw), out_type="featmap", out_indices=kw["out_indices"]).eval()
    names = load_published(model, case.state_dict(), skip=["rope.*"]).loaded
    assert sum(p.numel() for p in model.parameters()) == case.parameters
    maps = {f"stage{i}": one for i, one in enumerate(model(case.inputs()["image"]))}
    case.check(gradients(case, model, names, **maps), **maps)


@pytest.mark.parametrize("name", recorded("localmamba", "Backbone_LocalVSSM"))
def test_vmamba_dense_features(golden, name):
    case = golden(f"localmamba/{name}")
    kw = case.source["kwargs"]
    model = LocalVMamba(**vmamba_settings(kw), out_indices=kw["out_indices"]).eval()
    names = load_published(model, case.state_dict()).loaded
    assert sum(p.numel() for p in model.parameters()) == case.parameters
    maps = {f"stage{i}": one for i, one in enumerate(model(case.inputs()["image"]))}
    case.check(gradients(case, model, names, **maps), **maps)


def test_simple_fpn(golden):
    case = golden("localmamba/simple_fpn")
    kw = case.source["kwargs"]
    neck = SimpleFPN(kw["backbone_channel"], kw["out_channels"], kw["num_outs"])
    names = load_published(neck, case.state_dict()).loaded
    levels = {f"level{i}": one for i, one in enumerate(neck((case.inputs()["feature"],)))}
    case.check(gradients(case, neck, names, **levels), **levels)
    with pytest.raises(ValueError, match="x: found 2 maps"):
        neck([case.inputs()["feature"]] * 2)
    for options, message in ((dict(num_outs=3), "num_outs"), (dict(backbone_channel=10), "backbone_channel")):
        with pytest.raises(ValueError, match=message):
            SimpleFPN(**{"backbone_channel": 16, **options})


@pytest.mark.parametrize("mixer", ["vim", "vmamba"])
def test_scan_inputs_give_the_output(mixer):
    """What a mixer says it scans with, windows' zero tokens included, scanned by the plain op, is what it computes."""
    scan = dict(type="local", directions=("h_flip", "v", "w2", "w3_flip"))
    if mixer == "vim":
        mixer, x = MultiMamba(16, d_state=3, scan=scan), torch.randn(2, 35, 16)
        nn.init.normal_(mixer.conv1d_2.bias)
        orders = mixer.scan((5, 7))
        given, expected = (x, orders), mixer(x, orders)
    else:
        mixer, x = LocalSS2D(16, d_state=3, scan=scan), torch.randn(2, 5, 7, 16)
        orders = mixer.scan((5, 7))
        given, expected = (x,), mixer.mix(mixer.before_scan(x)[0])
    found = mixer.scan_inputs(*given)
    u, delta, A, B, C, D = found.u, found.delta, found.A, found.B, found.C, found.D
    gates = [None] * 4 if found.z is None else found.z.unbind(1)
    y = [selective_scan(u[:, k], delta[:, k], A[k], B[:, k], C[:, k], D[k], z=gates[k]) for k in range(4)]
    y_BKTE = return_tokens(torch.stack(y, 1).transpose(2, 3), orders)
    if isinstance(mixer, MultiMamba):
        out = mixer.out_proj(mixer.multi_scan(mixer.attn(y_BKTE)))
    else:
        out = mixer.multi_scan(y_BKTE).view(expected.shape)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
