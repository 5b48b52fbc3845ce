"""RSMamba against the published implementation, and what a user of the backbone expects beside that."""

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.models import ImageClassifier
from recorded import recorded

from mamba_vision.checkpoints import load_published
from mamba_vision.kernels import selective_scan
from mamba_vision.models.backbones.rsmamba import ARCHS, PARAMETERS, RSMamba
from mamba_vision.models.mixers.shared_paths import SharedPathsMamba


def backbone_of(kw: dict) -> RSMamba:
    options = {name: value for name, value in kw.items() if name != "num_classes"}
    return RSMamba(**options)


def classifier(backbone: RSMamba, classes: int) -> ImageClassifier:
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        head = dict(type="LinearClsHead", num_classes=classes, in_channels=backbone.embed_dims)
        return ImageClassifier(backbone, head=head)


def gradients(case, model: torch.nn.Module, **outputs) -> dict[str, torch.Tensor]:
    if not case.gradients:
        return {}
    case.loss(**outputs).backward()
    parameters = dict(model.named_parameters())
    return {name: parameters[name].grad for name in case.gradients}


def test_mixer(golden):
    case = golden("rsmamba/mixer")
    kw = case.source["kwargs"]
    mixer = SharedPathsMamba(kw["hidden_size"], kw["intermediate_size"], dt_rank=kw["time_step_rank"])
    load_published(mixer, case.state_dict())
    output = mixer(case.inputs()["x"])
    case.check(gradients(case, mixer, output=output), output=output)


@pytest.mark.parametrize("name", recorded("rsmamba", "LinearClsHead)"))
def test_classifier(golden, name):
    case = golden(f"rsmamba/{name}")
    kw, inputs = case.source["kwargs"], case.inputs()
    model = classifier(backbone_of(kw), kw["num_classes"]).eval()
    load_published(model, {"state_dict": case.state_dict()})
    assert sum(p.numel() for p in model.parameters()) == case.parameters

    outputs = {}

    def tap(mixer: SharedPathsMamba, given: tuple, name: str) -> None:
        means_BKC = mixer.each_path(*given[:2]).mean(2)
        outputs[name] = means_BKC.transpose(0, 1).flatten(0, 1)  # the published code stacks paths along the batch

    for output in case.outputs:
        if output.startswith("mixer."):
            layer = model.backbone.layers[int(output.removeprefix("mixer."))]
            layer.register_forward_pre_hook(lambda module, given, name=output: tap(module, given, name))
    scores = [inputs[f"shuffle.{i}"] for i in range(len(model.backbone.layers))] if "shuffle.0" in inputs else None
    features = model.backbone(inputs["x"], scores)
    outputs |= {"feature": features[-1], "output": model.head(features)}
    case.check(gradients(case, model, **outputs), **outputs)


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameter_counts(name):
    with torch.device("meta"):
        model = RSMamba(name, patch_cfg=dict(stride=8))
    count = sum(p.numel() for p in model.parameters())
    if isinstance(PARAMETERS[name], int):
        assert count == PARAMETERS[name]
    else:  # published in millions, with a head of up to 45 classes
        assert abs(count / 1e6 - PARAMETERS[name]) < 0.06
    assert ARCHS[name[0]] is ARCHS[name]


def test_evaluation_repeats_unless_asked_for_the_published_way():
    x = torch.randn(1, 3, 64, 64)
    for random_eval in (False, True):
        model = RSMamba("test", img_size=64, random_eval=random_eval).eval()
        assert torch.equal(model(x)[0], model(x)[0]) is not random_eval
    model.train()
    assert not torch.equal(model(x)[0], model(x)[0])


@pytest.mark.parametrize("size", [(64, 64), (50, 83), (16, 129)])
def test_any_image_size(size):
    model = RSMamba("test", img_size=64, patch_cfg=dict(stride=8), out_type="featmap", out_indices=(0, 2))
    maps = model(torch.randn(2, 3, *size))
    assert [tuple(m.shape) for m in maps] == [(2, 32, -(-size[0] // 8), -(-size[1] // 8))] * 2
    maps[-1].square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("position", ["head", "middle", "tail", "head_tail"])
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])  # 16 and 15 patches
def test_class_tokens(position, size):
    model = RSMamba("test", img_size=64, cls_position=position, out_type="cls_token")
    assert model(torch.randn(2, 3, *size))[0].shape == (2, 32)
    pooled = RSMamba("test", img_size=64, cls_position=position)
    assert pooled(torch.randn(2, 3, *size))[0].shape == (2, 32)


def test_class_token_is_read_where_it_was_put():
    """With an odd number of patches too, where published code reads its neighbour."""
    model = RSMamba("test", img_size=(48, 80), cls_position="middle", out_type="raw")
    torch.nn.init.constant_(model.cls_token, 100.0)
    model.layers = model.gate_layers = torch.nn.ModuleList()
    tokens, grid, places = model.embed(torch.randn(1, 3, 48, 80))
    assert grid == (3, 5) and tokens[0, :, 0].argmax() == places[0] == 7


@pytest.mark.parametrize("positions", ["learnable", "sine", "none"])
def test_positions(positions):
    model = RSMamba("test", img_size=64, pe_type=positions, cls_position="head")
    assert (model.pos_embed is None) == (positions != "learnable")
    assert model(torch.randn(1, 3, 48, 64))[0].shape == (1, 32)


def test_positions_of_another_image_size():
    small, large = RSMamba("test", img_size=64), RSMamba("test", img_size=96)
    load_published(large, small.state_dict())
    assert large.pos_embed.shape == (1, 36, 32)


@pytest.mark.parametrize("scan", ["cross", "hilbert", dict(type="local", directions=("h", "v_flip", "w3"))])
@pytest.mark.parametrize("path_type", ["forward_reverse_gate", "forward_reverse_mean"])
def test_any_scan_order(scan, path_type):
    scan = dict(type=scan) if isinstance(scan, str) else scan
    model = RSMamba("test", img_size=64, scan=scan, path_type=path_type, cls_position="middle")
    assert model(torch.randn(2, 3, 48, 64))[0].shape == (2, 32)


def test_recomputing_changes_nothing():
    x = torch.randn(2, 3, 64, 64)
    plain, saving = RSMamba("test", img_size=64), RSMamba("test", img_size=64, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    for model in (plain, saving):
        torch.manual_seed(1)
        model.train()(x)[0].square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters()):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_frozen_stages_and_depths():
    model = RSMamba("test", img_size=64, frozen_stages=2).train()
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(name.startswith(("layers.2.", "gate_layers.2.", "pre_norm", "ln")) for name in free)
    assert model.get_layer_depth("backbone.gate_layers.1.0.weight", "backbone.") == (2, 5)
    assert model.get_layer_depth("backbone.ln1.weight", "backbone.") == (4, 5)
    assert model.get_layer_depth("backbone.pos_embed", "backbone.") == (0, 5)


def test_start_of_parameters():
    model = RSMamba(dict(embed_dims=64, num_layers=1, feedforward_channels=128), img_size=64)
    mixer = model.layers[0]
    assert mixer.dt_proj.bias.abs().max() <= 0.5 and mixer.dt_proj.bias.std() > 0.2  # uniform within 4 ** -0.5
    assert 0.018 < model.pos_embed.std() < 0.022
    assert abs(model.patch_embed.projection.weight.std() / 768**-0.5 - 1) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(arch="giant"), "unknown arch 'giant'"),
        (dict(cls_position="random"), "cls_position: found 'random'"),
        (dict(out_type="cls_token"), "out_type: found 'cls_token' with cls_position='none'"),
        (dict(out_type="map"), "out_type: found 'map'"),
        (dict(pe_type="rope"), "pe_type: found 'rope'"),
        (dict(path_type="forward_shuffle_gate"), "path_type: found 'forward_shuffle_gate'"),
        (dict(out_indices=(3,)), "out_indices: found"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        RSMamba(**{"arch": "test", "img_size": 64, **options})


def test_scan_inputs_give_the_output():
    mixer = SharedPathsMamba(16, 32, d_state=4)
    x, order = torch.randn(2, 7, 16), torch.stack([torch.arange(7), torch.randperm(7)])
    found = mixer.scan_inputs(x, order)
    outs = []
    for k in range(2):
        y = selective_scan(
            found.u[:, k], found.delta[:, k], found.A[k], found.B[:, k], found.C[:, k], found.D[k], z=found.z[:, k]
        )
        outs.append(torch.zeros_like(y).index_copy(2, order[k], y))
    expected = mixer.out_proj(torch.stack(outs, 1).transpose(2, 3))
    torch.testing.assert_close(mixer.each_path(x, order), expected, rtol=1e-4, atol=1e-5)


def test_dropped_layers():
    model = RSMamba("test", img_size=64, drop_path_rate=0.999)
    assert [path.drop_prob for path in model.drop_paths] == pytest.approx([0, 0.4995, 0.999])
    assert set(model.state_dict()) == set(RSMamba("test", img_size=64).state_dict())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.manual_seed(0)  # the last layer is dropped, the one before it not always
        assert any(not torch.equal(model.train()(image)[0], model(image)[0]) for _ in range(5))
