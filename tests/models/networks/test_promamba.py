"""ProMamba by its definition; nobody published code or weights of it. Its Vim part by a recorded case of Vim."""

import pytest
import torch
from torch import nn

from mamba_vision.checkpoints import CheckpointError, load_published
from mamba_vision.models.backbones import vim
from mamba_vision.models.layers.prompt_encoder import PromptEncoder, coverage
from mamba_vision.models.layers.prompt_fusion import PromptFusionBlock
from mamba_vision.models.networks.promamba import ARCHS, PARAMETERS, ProMamba
from mamba_vision.registry import MODELS
from mamba_vision.scan_orders import insert_tokens

NOT_VIM = ("norms.**", "stem.**", "prompts.**", "fusion.**", "decoder.**")


def count(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


@pytest.fixture
def network() -> ProMamba:
    return ProMamba("test").eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 3, 48, 64)


@pytest.mark.parametrize("arch", PARAMETERS)
def test_sizes(arch):
    with torch.device("meta"):
        network = ProMamba(arch)
    assert count(network) == PARAMETERS[arch]
    # Vim as published, without its head, class token and that token's position.
    width = network.embed_dims
    assert count(network.encoder) == vim.PARAMETERS[arch] - 1000 * (width + 1) - 2 * width
    assert len(network.encoder.layers) == 24 and network.encoder.out_indices == (5, 11, 17, 23)
    assert len(network.fusion) == {"tiny": 2, "small": 4, "base": 4}[arch]
    assert [block.drop_path.drop_prob for block in network.fusion][-1] == ARCHS[arch]["drop_path_rate"]
    features = network.encode(torch.empty(1, 3, 352, 352, device="meta"))
    assert [tuple(f.shape[1:]) for f in features] == [(width, 22, 22)] * 4 + [(64, 88, 88), (96, 44, 44)]


@pytest.mark.parametrize("size", [(16, 16), (48, 64), (50, 33), (7, 100)])
@pytest.mark.parametrize("kind", ["none", "box", "boxes", "point", "both"])
def test_any_size_and_prompt(network, size, kind):
    boxes = torch.tensor([[[1.0, 2.0, 9.0, 6.0]], [[0.0, 0.0, 5.0, 5.0]]])
    points, labels = torch.tensor([[[3.0, 4.0]], [[1.0, 0.0]]]), torch.tensor([[1], [0]])
    prompts = {
        "none": {},
        "box": dict(boxes=boxes),
        "boxes": dict(boxes=boxes.repeat(1, 3, 1), box_mask=torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()),
        "point": dict(points=points, labels=labels),
        "both": dict(boxes=boxes, points=points, labels=labels, point_mask=torch.tensor([[True], [False]])),
    }[kind]
    logits = network(torch.randn(2, 3, *size), **prompts)
    assert logits.shape == (2, 1, *size) and logits.isfinite().all()
    deep = network(torch.randn(2, 3, *size), **prompts, deep=True)
    assert [tuple(one.shape) for one in deep] == [(2, 1, *size)] * 3


def test_rows_of_a_batch_are_their_own(network, image):
    """A batch of a box, a point and nothing gives what each gives alone."""
    image = torch.cat([image, image[:1].flip(3)])
    boxes = torch.tensor([[4.0, 4.0, 20.0, 30.0]]).expand(3, 1, 4)
    points, labels = torch.full((3, 1, 2), 9.0), torch.ones(3, 1)
    masks = dict(box_mask=torch.tensor([[1], [0], [0]]).bool(), point_mask=torch.tensor([[0], [1], [0]]).bool())
    together = network(image, boxes, points, labels, **masks)
    alone = [
        network(image[:1], boxes[:1]), network(image[1:2], points=points[:1], labels=labels[:1]), network(image[2:])
    ]  # fmt: skip
    torch.testing.assert_close(together, torch.cat(alone))


def test_a_masked_prompt_is_none(network, image):
    boxes = torch.rand(2, 1, 4) * 40
    none = network(image)
    torch.testing.assert_close(network(image, boxes, box_mask=torch.zeros(2, 1).bool()), none)
    torch.testing.assert_close(network(image, boxes[:, :0]), none)
    assert (network(image, torch.tensor([[[0.0, 0.0, 20.0, 20.0]]]).expand(2, 1, 4)) - none).abs().max() > 1e-4


def test_boxes_are_clipped_and_one_without_area_is_a_point(network, image):
    box = torch.tensor([[[-9.0, 5.0, 500.0, 20.0]]]).expand(2, 1, 4)
    clipped = torch.tensor([[[0.0, 5.0, 64.0, 20.0]]]).expand(2, 1, 4)
    torch.testing.assert_close(network(image, box), network(image, clipped))
    flat = torch.tensor([[[10.0, 12.0, 10.0, 20.0]]]).expand(2, 1, 4)
    # A pixel's centre lies half a pixel behind its number.
    point = dict(points=torch.tensor([[[9.5, 15.5]]]).expand(2, 1, 2), labels=torch.ones(2, 1))
    torch.testing.assert_close(network(image, flat), network(image, **point))


def test_what_fills_a_batch_up_changes_nothing(network, image):
    """Exactly, not only after training: exported networks have room for a fixed number of prompts."""
    box, point = torch.tensor([[[4.0, 4.0, 20.0, 30.0]]]).expand(2, 1, 4), torch.tensor([[[30.0, 9.0]]]).expand(2, 1, 2)
    room = dict(
        boxes=torch.cat([torch.rand(2, 3, 4), box, torch.rand(2, 4, 4)], 1), box_mask=torch.arange(8).expand(2, 8) == 3,
        points=torch.cat([point, 40 * torch.rand(2, 2, 2)], 1), labels=torch.ones(2, 3),
        point_mask=torch.arange(3).expand(2, 3) == 0,
    )  # fmt: skip
    torch.testing.assert_close(network(image, **room), network(image, box, point, torch.ones(2, 1)))
    none = {**room, "box_mask": torch.zeros(2, 8).bool(), "point_mask": torch.zeros(2, 3).bool()}
    torch.testing.assert_close(network(image, **none), network(image))


def test_tokens_by_their_formula():
    encoder = PromptEncoder(6)
    points, labels = torch.tensor([[[3.0, 10.0]]]), torch.tensor([[0]])
    tokens, _, dense = encoder(
        torch.zeros(1, 0, 4), torch.zeros(1, 0).bool(), points, labels, torch.ones(1, 1).bool(), (30, 48), (2, 3)
    )
    place = torch.tensor([2 * 3.5 / 48 - 1, 2 * 10.5 / 32 - 1])
    turns = 2 * torch.pi * (place @ encoder.frequencies)
    expected = encoder.norm(torch.cat([turns.sin(), turns.cos()]) + encoder.label_tokens[0])
    torch.testing.assert_close(tokens[0, 0], expected)
    # The point's place is (3.5, 10.5); patches have their middles at 8, 24, 40 and 8, 24.
    near = torch.zeros(1, 5, 2, 3)
    near[0, 1, 0, 0], near[0, 1, 1, 0] = (1 - 4.5 / 16) * (1 - 2.5 / 16), (1 - 4.5 / 16) * (2.5 / 16)
    across, down = torch.meshgrid(torch.tensor([8.0, 24.0, 40.0]), torch.tensor([8.0, 24.0]), indexing="xy")
    near[0, 3] = 1 / (1 + torch.hypot(across - 3.5, down - 10.5) / 16)
    torch.testing.assert_close(dense, encoder.cover(near))


def test_without_prompts_the_map_is_one_token():
    encoder = PromptEncoder(6)
    none, point = (torch.zeros(2, count, 2) for count in (0, 1))
    boxes, mask = torch.zeros(2, 0, 4), torch.zeros(2, 0).bool()
    _, _, dense = encoder(boxes, mask, none, torch.zeros(2, 0), mask, (32, 32), (2, 2))
    assert (dense == encoder.no_cover_token[:, None, None]).all()
    given = torch.tensor([[True], [False]])
    _, _, dense = encoder(boxes, mask, point, torch.ones(2, 1), given, (32, 32), (2, 2))
    assert (dense[1] == encoder.no_cover_token[:, None, None]).all() and (dense[0] != dense[1]).any()


def test_coverage_is_the_area_of_the_patch_inside_the_box():
    boxes = torch.tensor([[[3.0, 5.0, 40.0, 17.0], [0.0, 0.0, 48.0, 32.0], [20.0, 20.0, 20.0, 30.0]]])
    pixels = torch.zeros(3, 32, 48)
    for number, (x1, y1, x2, y2) in enumerate(boxes[0].int().tolist()):
        pixels[number, y1:y2, x1:x2] = 1
    expected = nn.functional.avg_pool2d(pixels, 16)
    torch.testing.assert_close(coverage(boxes, (2, 3), 16)[0], expected)


def test_fusion_is_the_scan_of_prompts_image_prompts():
    """One order that names prompts twice does what copies of them would: their mean, the image between."""
    block = PromptFusionBlock(8, dict(d_state=4)).double().eval()
    image, prompts = torch.randn(2, 6, 8).double(), torch.randn(2, 3, 8).double()
    copies = torch.cat([prompts, image, prompts], 1)
    mixed = copies + block.mixer(block.norm(copies), torch.stack([torch.arange(12), torch.arange(12).flip(0)]))
    expected_prompts = (mixed[:, :3] + mixed[:, 9:]) / 2
    expected_prompts = expected_prompts + block.mlp(block.mlp_norm(expected_prompts))
    expected = mixed[:, 3:9]
    grid = block.conv_norm(expected).transpose(1, 2).unflatten(2, (2, 3))
    expected = expected + block.conv(grid).flatten(2).transpose(1, 2)
    expected = expected + block.mlp(block.mlp_norm(expected))
    out, out_prompts = block(image, prompts, (2, 3), block.reading_order(torch.ones(2, 3).bool(), (2, 3)))
    torch.testing.assert_close(out_prompts, expected_prompts)
    torch.testing.assert_close(out, image + torch.tanh(torch.tensor(1.0)).double() * (expected - image))


def test_fusion_gradients():
    block = PromptFusionBlock(4, dict(d_state=2)).double()
    image, prompts = torch.randn(1, 4, 4).double().requires_grad_(), torch.randn(1, 2, 4).double().requires_grad_()
    order = block.reading_order(torch.tensor([[True, False]]), (2, 2))
    assert torch.autograd.gradcheck(lambda x, p: block(x, p, (2, 2), order), (image, prompts))


def test_every_parameter_learns(image):
    network = ProMamba("test")
    boxes = torch.tensor([[[4.0, 4.0, 20.0, 30.0], [0, 0, 9, 9]], [[0, 0, 3, 3], [0, 0, 0, 0]]])
    prompts = dict(boxes=boxes, box_mask=torch.tensor([[1, 1], [0, 0]]).bool(), points=torch.rand(2, 2, 2) * 40,
                   labels=torch.tensor([[1, 0], [1, 0]]), point_mask=torch.tensor([[1, 1], [0, 0]]).bool())  # fmt: skip
    loss = sum(one.square().mean() for one in network(image, **prompts, deep=True))
    single = network(image, boxes[:, :1], box_mask=torch.tensor([[True], [False]]))
    (loss + single.square().mean()).backward()
    assert [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_vim_part_gives_the_recorded_outputs(golden):
    """The published tiny Vim's weights go into the encoder, whose blocks then give what was recorded."""
    case = golden("vim/vim_tiny_224")
    state = case.state_dict()
    network = ProMamba("tiny").eval()
    report = load_published(network, state, skip=NOT_VIM)
    assert sorted(report.ignored) == ["cls_token", "head.bias", "head.weight"]
    assert all(ours == f"encoder.{theirs}" for theirs, ours in report.loaded.items())
    positions = state["pos_embed"]
    torch.testing.assert_close(network.encoder.pos_embed, torch.cat([positions[:, :98], positions[:, 99:]], 1))

    patches = network.encoder.patch_embed.proj(case.inputs()["x"]).flatten(2).transpose(1, 2)
    hidden, residual = insert_tokens(patches, state["cls_token"], (98,)) + positions, None
    taps, rows = {}, case.source["call"]["tap_tokens"]
    with torch.no_grad():
        for index, layer in enumerate(network.encoder.layers):
            hidden, residual = layer(hidden, residual)
            if index in case.source["call"]["taps"]:
                taps |= {f"hidden_{index}": hidden[:, rows], f"residual_{index}": residual[:, rows]}
    for name, value in taps.items():
        case.check(**{name: value})


def test_a_file_of_vim_says_what_it_lacks():
    source = vim.Vim("test", class_token="middle").state_dict()
    network = ProMamba("test")
    with pytest.raises(CheckpointError, match="fill the encoder only") as caught:
        load_published(network, source)
    missing = set(network.state_dict()) - {f"encoder.{name}" for name in source}
    assert {name.partition(".")[0] for name in missing} == {"norms", "stem", "prompts", "fusion", "decoder"}
    assert f"missing ({len(missing)})" in str(caught.value) and "left over" not in str(caught.value)


def test_encoder_from_a_file(tmp_path):
    source = vim.Vim("test")
    torch.save({"model": source.state_dict()}, tmp_path / "vim.pth")
    network = ProMamba("test", encoder=dict(init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "vim.pth"))))
    network.init_weights()
    torch.testing.assert_close(network.encoder.norm_f.weight, source.norm_f.weight)
    torch.testing.assert_close(network.encoder.layers[3].mixer.A_log, source.layers[3].mixer.A_log)


def test_own_weights_come_back_and_serve_every_size(network, image):
    other = ProMamba("test").eval()
    load_published(other, network.state_dict())
    box = torch.tensor([[[4.0, 4.0, 20.0, 30.0]]]).expand(2, 1, 4)
    for size in (image, image[..., :31, :40]):
        torch.testing.assert_close(other(size, box), network(size, box))


def test_half_precision_is_finite(network, image):
    box = torch.tensor([[[4.0, 4.0, 20.0, 30.0]]]).expand(2, 1, 4)
    exact = network(image, box)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            half = network(image, box)
            large = network(1e3 * image, box)
        assert large.isfinite().all()
        assert (half - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_streams_beyond_float16(network, image, dtype):
    """The encoder's and the prompt blocks' streams leave float16's range: all stays finite, and close in float16."""
    with torch.no_grad():
        for block in (*network.encoder.layers, *network.fusion):
            block.mixer.in_proj.weight.mul_(80)
    seen = []
    for block in (network.encoder.layers[-1], network.fusion[-1]):
        block.register_forward_hook(lambda module, given, made: seen.append(made[0].abs().max()))
    network.train()  # batch norms as training leaves them: fitted to what they see
    box = torch.tensor([[[4.0, 4.0, 20.0, 30.0]]]).expand(2, 1, 4)
    exact = network(image, box)
    with torch.autocast("cpu", dtype=dtype):
        logits = network(image, box, deep=True)
    (1e-4 * sum(one.float().mean() for one in logits)).backward()
    assert min(seen) > 65504 and all(one.isfinite().all() for one in logits)
    assert dtype == torch.bfloat16 or (logits[0] - exact).norm() < 0.1 * exact.norm()
    assert all(value.grad.isfinite().all() for value in network.parameters() if value.grad is not None)


def test_another_scan_order(image):
    network = ProMamba("test", scan=["raster", dict(type="hilbert", schemes=[0])]).eval()
    assert network(image).isfinite().all() and network.fusion[0].mixer.scan.n_directions == 2
    assert network(image, torch.rand(2, 3, 4) * 40).isfinite().all()


def test_encoder_and_decoder_export_apart(network):
    """Shapes alone decide: one graph serves every prompt and every mask of it."""
    image = torch.randn(1, 3, 40, 64)
    encoder = Part(network.encode)
    encoder.network = network
    features = torch.export.export(encoder, (image,)).module()(image)
    torch.testing.assert_close(features, network.encode(image))
    decoder = Part(network.decode)
    decoder.network = network
    args = (features, torch.zeros(1, 8, 4), torch.zeros(1, 2, 2), torch.ones(1, 2),
            torch.zeros(1, 8).bool(), torch.zeros(1, 2).bool())  # fmt: skip
    graph = torch.export.export(decoder, args).module()
    torch.testing.assert_close(graph(*args), network.decode(*args))
    boxes, mask = torch.rand(1, 8, 4) * 40, torch.arange(8)[None] < 3
    given = (features, boxes, torch.rand(1, 2, 2) * 30, torch.tensor([[1.0, 0.0]]), mask, torch.ones(1, 2).bool())
    torch.testing.assert_close(graph(*given), network.decode(*given))


class Part(nn.Module):
    """A method as a module."""

    def __init__(self, method) -> None:
        super().__init__()
        self.method = method

    def forward(self, *args):
        return self.method(*args)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(arch="huge"), "unknown arch 'huge'"),
        (dict(arch=dict(embed_dims=8, layers=3)), "unknown settings layers"),
        (dict(arch="test", num_layers=3), "num_layers >= 4"),
        (dict(arch="test", stem_channels=(8, 16)), "expected three widths"),
        (dict(arch="test", decoder_channels=10), "decoder_channels: found 10"),
        (dict(arch="test", embed_dims=33), "channels: found 33"),
        (dict(arch="test", encoder=dict(stride=8)), "encoder: found stride"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type="mamba_vision.ProMamba", **settings))


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="colour"):
        ProMamba("test", colour=1)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (dict(boxes=torch.zeros(2, 4)), r"boxes: found shape \(2, 4\)"),
        (dict(boxes=torch.zeros(1, 1, 4)), r"boxes: found shape \(1, 1, 4\), expected \(2, K, 4\)"),
        (dict(points=torch.zeros(2, 1, 2)), "points and labels"),
        (dict(points=torch.zeros(2, 1, 2), labels=torch.zeros(2, 3)), r"labels: found shape \(2, 3\)"),
        (dict(box_mask=torch.ones(2, 1).bool()), "box_mask: found a mask"),
    ],
)
def test_prompts_are_checked(network, image, prompts, message):
    with pytest.raises(ValueError, match=message):
        network(image, **prompts)


@pytest.mark.gpu
def test_gpu_gives_the_same(network, image):
    box = torch.tensor([[[4.0, 4.0, 20.0, 30.0]]]).expand(2, 1, 4)
    expected = network(image, box)
    found = network.cuda()(image.cuda(), box.cuda()).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
