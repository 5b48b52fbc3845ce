"""Hidden attention against the published implementation, and against the layers that it explains."""

import sys
from pathlib import Path

import pytest
import torch
from recorded import recorded

import mamba_vision
from mamba_vision.apis.hidden_attention import attention_maps, attention_matrices, attention_row
from mamba_vision.checkpoints import load_published
from mamba_vision.models.mixers import BidirectionalMamba, MultiMamba

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from test_vim import backbone_config, classifier, mixer_options


def layer_of(case) -> BidirectionalMamba:
    kw = dict(case.source["kwargs"])
    kw["if_divide_out"] = kw.pop("if_devide_out")
    mixer = BidirectionalMamba(kw["d_model"], **mixer_options(kw))
    load_published(mixer, case.state_dict())
    return mixer


@pytest.mark.parametrize("name", recorded("hidden_attention", "Mamba", only="matrix"))
def test_matrices(golden, name):
    case = golden(f"hidden_attention/{name}")
    mixer, x = layer_of(case), case.inputs()["x"]
    forward, backward = attention_matrices(mixer.scan_inputs(x)).unbind(1)
    case.check(y=mixer(x), attn_matrix_a=forward, attn_matrix_b=backward)


@pytest.mark.parametrize("name", recorded("hidden_attention", "Mamba", only="vector"))
def test_class_row(golden, name):
    case = golden(f"hidden_attention/{name}")
    mixer, x = layer_of(case), case.inputs()["x"]
    case.check(y=mixer(x), xai=attention_row(mixer.scan_inputs(x), x.shape[1] // 2))


@pytest.mark.parametrize("name", recorded("hidden_attention", "VisionMamba"))
def test_maps(golden, name):
    case = golden(f"hidden_attention/{name}")
    kw = dict(case.source["kwargs"])
    kw["if_divide_out"] = kw.pop("if_devide_out")
    model = classifier(backbone_config(kw), kw["num_classes"]).eval()
    load_published(model, case.state_dict())
    found = attention_maps(model, case.inputs()["x"], start_layer=case.source["call"]["start_layer"])
    outputs = {key: getattr(found, key).flatten(1) for key in ("raw", "rollout", "attribution")}
    for layer in case.source["call"]["layers"]:
        at = found.layers.index(layer)
        outputs |= {f"xai_{layer}": found.rows[at], f"residual_gradient_{layer}": found.gradients[at]}
    case.check(logits=found.logits, **outputs)


def test_matrices_are_what_the_layer_does():
    """With skip and gate, times the convolution's output, added over directions: the layer before its projection."""
    mixer = BidirectionalMamba(16, d_state=3).double()
    x = torch.randn(2, 10, 16, dtype=torch.float64)
    found = mixer.scan_inputs(x)
    inputs = torch.stack([u.index_select(-1, path.argsort()) for u, path in zip(found.u.unbind(1), found.order)], 1)
    outputs = torch.einsum("bkert,bket->ber", attention_matrices(found, gated=True), inputs)
    torch.testing.assert_close(mixer.out_proj(outputs.transpose(1, 2) / 2), mixer(x))


def test_rows_and_channels_of_the_matrices():
    """Also where windows of an order hold zero tokens."""
    mixer = MultiMamba(16, d_state=3, scan=dict(type="local", directions=("h", "v_flip", "w2"), class_token=True))
    found = mixer.scan_inputs(torch.randn(2, 10, 16), mixer.scan((3, 3)))
    matrices = attention_matrices(found)
    assert matrices.shape == (2, 3, 32, 10, 10)
    torch.testing.assert_close(attention_row(found, 5, published=False), matrices[..., 5, :].sum(1))
    torch.testing.assert_close(attention_matrices(found, channels=[3, 7]), matrices[:, :, [3, 7]])


def test_any_size_batch_and_query():
    model = mamba_vision.get_model("vim_test", num_classes=5).eval()
    images = torch.randn(2, 3, 48, 80)
    both = attention_maps(model, images, start_layer=1)
    assert both.raw.shape == (2, 3, 5) and both.layers == [1, 2, 3] and both.attribution.min() >= 0
    alone = attention_maps(model, images[1:], start_layer=1)
    torch.testing.assert_close(both.attribution[1:], alone.attribution, rtol=1e-3, atol=1e-6)
    asked = attention_maps(model, images, classes=torch.tensor([0, 4]), query=(2, 1))
    assert asked.classes.tolist() == [0, 4] and not torch.allclose(asked.raw, both.raw)
    local = mamba_vision.get_model("localvim_test", num_classes=5, class_token="middle").eval()
    assert attention_maps(local, images).rollout.shape == (2, 3, 5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vmamba_test", {}, "found VMamba, expected a plain backbone"),
        ("localvim_test", {}, "query: found none with 0 class tokens"),
        ("vim_test", {"start_layer": 4}, "start_layer: found 4"),
        ("vim_test:random", {}, "found class_token='random'"),
        ("vim_test", {"query": (0, 9)}, r"query: found \(0, 9\)"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(ValueError, match=message):
        name, _, token = name.partition(":")
        model = mamba_vision.get_model(name, num_classes=5, **({"class_token": token} if token else {}))
        attention_maps(model, torch.randn(1, 3, 64, 64), **options)
