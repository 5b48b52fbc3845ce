"""ZigMa beyond parity: its variants, sizes, scans, conditions, start, files."""

import pytest
import torch

from mamba_vision.apis.complexity import complexity
from mamba_vision.checkpoints import CheckpointError, load_published
from mamba_vision.models.networks.zigma import ARCHS, PARAMETERS, ZigMa
from mamba_vision.models.networks.zigma_orders import layer_orders
from mamba_vision.registry import MODELS


def lively(model: ZigMa) -> ZigMa:
    """With gates that are not zero, so that everything that the network is told shows."""
    with torch.no_grad():
        for block in model.blocks:
            block.adaLN_modulation[1].bias.uniform_(0.3, 0.6)
            block.adaLN_modulation[1].weight.normal_(std=0.3)
    return model.eval()


def tiny(**options) -> ZigMa:
    return lively(ZigMa("tiny", **options))


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameter_counts(name):
    with torch.device("meta"):
        count = sum(p.numel() for p in ZigMa(name).parameters()) / 1e6
    digits = 1 if name.endswith("_2") and len(name) == 3 else 2
    assert round(count, digits) == round(PARAMETERS[name], digits)


@pytest.mark.parametrize(("width", "layers", "millions"), [(640, 18, 117.00), (768, 24, 215.50)])
def test_published_demonstrations_with_text(width, layers, millions):
    with torch.device("meta"):
        arch = dict(embed_dims=width, num_layers=layers, patch_size=1)
        model = ZigMa(arch, in_channels=3, positions="learned", text_channels=768)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


PUBLISHED_COST = {  # multiply-adds and scan operations of one sample, in 10^9
    "sweep2_b1_pe2": (97.0, 10.9), "zigzag8_b1_pe2": (92.0, 5.5), "s1024_zigzag8_b2_old": (368.0, 21.9),
    "3d_sweep2_b2": (387.9, 43.8), "3d_zigzag8sst_b2": (368.0, 21.9),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED_COST)
def test_published_cost(name):
    with torch.device("meta"):
        model = ZigMa(name)
    size = (1, 16, 4, 32, 32) if model.frames else (1, 4, *model.img_size)
    given = [torch.empty(size), torch.empty(1)] + [torch.zeros(1, dtype=torch.long)] * bool(model.frames)
    found = complexity(model, *given)
    assert (found.multiply_adds / 1e9, found.scan / 1e9) == pytest.approx(PUBLISHED_COST[name], rel=0.02)


def test_every_variant_is_counted_or_a_patch_size_of_one():
    assert set(PARAMETERS) < set(ARCHS)
    sizes = {name.split("_")[0] for name in PARAMETERS}
    assert all(name in PARAMETERS or name == "tiny" or name.split("_")[0] in sizes for name in ARCHS)
    assert ARCHS["s_2"]["embed_dims"] == 368  # published so; 384 is what one expects


def test_registered():
    model = MODELS.build(dict(type="mamba_vision.ZigMa", arch="tiny"))
    assert model(torch.randn(1, 4, 8, 8), torch.rand(1)).shape == (1, 4, 8, 8)


SCANS = ["v1", "v2", "zigzagN3", "hilbertN8", "randomN2"]


@pytest.mark.parametrize("scan_type", SCANS)
@pytest.mark.parametrize("size", [(8, 8), (6, 10)])
def test_scan_families_on_any_grid(scan_type, size):
    model = tiny(scan_type=scan_type, positions="learned")
    x = torch.randn(2, 4, *size, requires_grad=True)
    out = model(x, torch.rand(2))
    assert out.shape == x.shape
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("scan_type", ["zzvideo_sst", "zzvideo_ts", "v2", "zigzagN8", "hilbertN2", "randomN1"])
def test_scan_families_of_clips(scan_type):
    model = tiny(scan_type=scan_type, frames=3, positions="learned", time_positions=True)
    for size in ((8, 8), (4, 6)):
        assert model(torch.randn(2, 3, 4, *size), torch.rand(2)).shape == (2, 3, 4, *size)
    free = tiny(scan_type=scan_type, frames=3)  # without a table of positions any number of frames
    assert free(torch.randn(1, 5, 4, 8, 8), torch.rand(1)).shape == (1, 5, 4, 8, 8)


@pytest.mark.parametrize("scan", ["cross", dict(type="zigzag", schemes=(0, 3)), ["raster", "hilbert"]])
def test_any_scan_order(scan):
    model = tiny(scan=scan)
    assert model(torch.randn(2, 4, 8, 6), torch.rand(2)).shape == (2, 4, 8, 6)
    assert len(model.blocks[0].mixer.suffixes) == model.orders[0].n_directions


def test_orders_put_right():
    """As published a layer along time returns frame T - 1 - f to frame f, and Hilbert tables are inverses."""
    published, right = (layer_orders("zzvideo_sst", 3, as_published=flag)[2]((4, 2, 2)) for flag in (True, False))
    assert published.published_return.tolist() == [[3, 2, 1, 0]] and right.published_return is None
    published, right = (layer_orders("hilbertN1", 1, as_published=flag)[0]((5, 3)) for flag in (True, False))
    assert torch.equal(published.indices, right.inverse)


def test_random_paths_belong_to_the_seed():
    x, t = torch.randn(1, 4, 8, 8), torch.rand(1)
    model = tiny(scan_type="randomN4", scan_seed=3)
    again, other = ZigMa("tiny", scan_type="randomN4", scan_seed=3), ZigMa("tiny", scan_type="randomN4", scan_seed=4)
    for copy, same in ((again, True), (other, False)):
        copy.load_state_dict(model.state_dict())
        assert torch.equal(model(x, t), copy.eval()(x, t)) is same


def test_class_condition():
    model = tiny(num_classes=3)
    x, t = torch.randn(1, 4, 8, 8), torch.rand(1)
    outs = [model(x, t, torch.tensor([number])) for number in range(3)]
    assert (outs[0] - outs[1]).abs().max() > 1e-4 and (outs[1] - outs[2]).abs().max() > 1e-4
    assert model.y_embedder.embedding_table.weight.shape == (3, 32)  # as published: no row for no class
    with pytest.raises(ValueError, match="null_class: this network was built without one"):
        model.no_condition(torch.tensor([0]))
    guided = tiny(num_classes=3, null_class=True)
    assert guided.no_condition(torch.tensor([0, 2])).tolist() == [3, 3]
    assert guided(x, t, torch.tensor([3])).shape == x.shape


def test_text_condition():
    model = tiny(text_channels=5)
    x, t = torch.randn(2, 4, 8, 8), torch.rand(2)
    short, long = torch.randn(2, 3, 5), torch.randn(2, 9, 5)
    assert (model(x, t, short) - model(x, t, long)).abs().max() > 1e-4
    torch.testing.assert_close(model(x, t, short), model(x, t, short[:, [2, 0, 1]]))  # text has no order of its own
    assert not model.no_condition(short).any()


@pytest.mark.parametrize("positions", ["none", "sine", "learned"])
def test_positions(positions):
    model = tiny(positions=positions)
    assert (positions == "learned") == ("pos_embed" in model.state_dict())
    assert model(torch.randn(1, 4, 4, 12), torch.rand(1)).shape == (1, 4, 4, 12)
    if positions == "sine":  # columns first: the first half of the channels knows the column alone
        table = model._positions((2, 3), torch.zeros(1)).unflatten(1, (2, 3))[0]
        assert torch.equal(table[0, :, :16], table[1, :, :16]) and torch.equal(table[:, 0, 16:], table[:, 1, 16:])
        assert not torch.equal(table[:, 0, :16], table[:, 1, :16])


def test_positions_of_another_size_are_resampled():
    small, large = tiny(positions="learned"), tiny(positions="learned", img_size=(12, 8))
    torch.nn.init.normal_(small.pos_embed)
    load_published(large, small.state_dict())
    assert large.pos_embed.shape == (1, 96, 32)
    x, t = torch.randn(1, 4, 12, 8), torch.rand(1)
    torch.testing.assert_close(small(x, t), large(x, t))


def test_published_start():
    model = ZigMa(dict(embed_dims=64, num_layers=4, patch_size=2), scan_type="v2", num_classes=200, img_size=8)
    for block in model.blocks:
        mixer = block.mixer
        assert not any(p.any() for p in block.adaLN_modulation.parameters())
        steps = torch.nn.functional.softplus(mixer.dt_proj.bias)
        assert steps.min() > 1e-3 * 0.99 and steps.max() < 0.1 * 1.01
        assert not mixer.dt_proj_b.bias.any()  # the second direction starts otherwise
        bound = 128**-0.5 / 2  # Kaiming uniform of the inner width, over the root of the depth
        assert 0.95 * bound < mixer.out_proj.weight.abs().max() <= bound
    for linear in (model.t_embedder.mlp[0], model.t_embedder.mlp[2]):
        assert 0.017 < linear.weight.std() < 0.023 and not linear.bias.any()
    assert 0.018 < model.y_embedder.embedding_table.weight.std() < 0.022
    assert model.final_layer.linear.weight.any() and not model.final_layer.linear.bias.any()
    assert model.blocks[0].drop_path.drop_prob == model.blocks[1].drop_path.drop_prob == 0
    rates = [block.drop_path.drop_prob for block in model.blocks[2:]] + [model.drop_path.drop_prob]
    assert rates == pytest.approx([0.1 / 3, 0.2 / 3, 0.1])


def test_published_training_file(tmp_path):
    """As the trainer writes it: weights and their average, wrapped; inference wants the average."""
    weights, average = ZigMa("tiny", num_classes=3).state_dict(), ZigMa("tiny", num_classes=3).state_dict()
    file = tmp_path / "0400000.pt"
    content = dict(model={f"module.{name}": value for name, value in weights.items()}, ema=average)
    torch.save({**content, "opt": {}, "args": {"lr": 1e-4}, "train_steps": 400000, "best_fid": 31.0}, file)
    model = ZigMa("tiny", num_classes=3)
    load_published(model, file, ema=True)
    assert all(torch.equal(value, average[name]) for name, value in model.state_dict().items())
    load_published(model, file)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    with pytest.raises(CheckpointError, match=r"left over \(1\):\s+y_embedder"):
        load_published(ZigMa("tiny"), file)


def test_recomputing_changes_nothing():
    plain, saving = tiny(drop_path_rate=0.0), tiny(drop_path_rate=0.0, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    x, t = torch.randn(2, 4, 8, 8), torch.rand(2)
    for model in (plain, saving):
        model.train()(x, t).square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters()):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_half_precision_keeps_the_residual_stream_wide():
    model = tiny(text_channels=5)
    seen = []
    model.blocks[-1].register_forward_hook(lambda module, given, out: seen.append(out[1].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        out = model(torch.randn(1, 4, 8, 8), torch.rand(1), torch.randn(1, 3, 5))
    assert seen == [torch.float32] and out.isfinite().all()


def test_mixer_options_and_layer_norm():
    model = tiny(mixer=dict(d_state=4, expand=1), norm="ln")
    assert model.blocks[0].mixer.A_log.shape == (32, 4) and model.norm_f.bias is not None
    found = model.blocks[1].mixer.scan_inputs(torch.randn(1, 16, 32), model.orders[1]((4, 4)).indices)
    assert found.u.shape == (1, 1, 32, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(arch="xl_2"), "unknown arch 'xl_2'"),
        (dict(scan_type="zigzagN9"), "scan_type: found 'zigzagN9', expected 'v1'"),
        (dict(scan_type="zigzagN0"), "scan_type: found 'zigzagN0'"),
        (dict(scan_type="zzvideo_ss", frames=2), "scan_type: found 'zzvideo_ss'"),
        (dict(scan_type="parallelN2"), "published without a forward pass"),
        (dict(positions="rope"), "positions: found 'rope'"),
        (dict(positions="sine", frames=2), "positions: found 'sine' with frames"),
        (dict(num_classes=2, text_channels=3), "num_classes and text_channels: found 2 and 3"),
        (dict(null_class=True), "null_class: found True without num_classes"),
        (dict(time_positions=True), "time_positions: found True without frames"),
        (dict(patch_size=3), r"size of the picture: found \(8, 8\), expected multiples of patch_size 3"),
        (dict(norm="batch"), "norm: found 'batch'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ZigMa(**{"arch": "tiny", **options})


@pytest.mark.parametrize(
    ("options", "x", "condition", "message"),
    [
        ({}, (1, 3, 8, 8), None, r"x: found shape \(1, 3, 8, 8\), expected \(batch, 4, height, width\)"),
        (dict(frames=2), (1, 4, 8, 8), None, r"expected \(batch, frames, 4, height, width\)"),
        (dict(frames=2, positions="learned"), (1, 3, 4, 8, 8), None, "x: found 3 frames, expected 2"),
        (dict(patch_size=2), (1, 4, 8, 7), None, r"found \(8, 7\), expected multiples of patch_size 2"),
        ({}, (1, 4, 8, 8), torch.tensor([0]), "condition: found one, but this network has neither"),
        (dict(num_classes=2), (1, 4, 8, 8), None, "condition: found none, expected class numbers"),
        (dict(num_classes=2), (1, 4, 8, 8), torch.tensor([[0]]), r"condition: found torch.int64 \(1, 1\)"),
        (dict(num_classes=2), (1, 4, 8, 8), torch.zeros(1), "condition: found torch.float32"),
        (dict(text_channels=5), (1, 4, 8, 8), torch.zeros(1, 7, 4), r"expected text features \(batch, tokens"),
    ],
)
def test_bad_inputs(options, x, condition, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)(torch.randn(*x), torch.rand(1), condition)
