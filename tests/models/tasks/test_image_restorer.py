"""The restoration task: tiles against the published ones and against whole images, losses, prediction, errors."""

import pytest
import torch
import torch.nn.functional as F
from recorded import recorded

from mamba_vision.checkpoints import load_published
from mamba_vision.models.losses.pixel import PixelLoss
from mamba_vision.models.networks.mambair import MambaIR
from mamba_vision.models.tasks.restoration import ImageRestorer
from mamba_vision.models.tasks.restoration_tiles import Tiling, bands, restore_in_tiles
from mamba_vision.registry import MODELS
from mamba_vision.structures import RestorationDataSample


@pytest.mark.parametrize("name", recorded("mambair", "test", only="tiles"))
def test_published_tiles(golden, name: str) -> None:
    case = golden(f"mambair/{name}")
    kwargs, x = case.source["kwargs"], case.inputs()["x"]
    same = ("embed_dim", "depths", "d_state", "mlp_ratio", "img_range", "resi_connection", "upscale")
    upsampler = kwargs["upsampler"] or "none"
    model = MambaIR({key: kwargs[key] for key in same}, in_channels=kwargs["in_chans"], upsampler=upsampler).eval()
    load_published(model, {"params": case.state_dict()})
    steps = []
    with torch.no_grad():
        output = restore_in_tiles(
            model, x, model.upscale, Tiling(blend=False), lambda done, all_: steps.append((done, all_))
        )
    case.check(output=output)
    total = (x.shape[2] // 200 + 1) * (x.shape[3] // 200 + 1)
    assert steps == [(number + 1, total) for number in range(total)]


def local_network(x: torch.Tensor) -> torch.Tensor:
    """Looks 2 pixels far, twice as large, and is not the same everywhere in a tile but for its border."""
    kernel = torch.linspace(-0.1, 0.3, 25).view(1, 1, 5, 5).expand(3, 1, 5, 5)
    return F.interpolate(F.conv2d(F.pad(x, (2, 2, 2, 2)), kernel, groups=3).tanh(), scale_factor=2, mode="nearest")


@pytest.mark.parametrize("size", [(40, 50), (63, 64), (64, 65), (97, 131), (16, 200)])
def test_tiles_and_whole_agree_where_the_margin_covers_what_a_network_looks_at(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    whole = local_network(x)
    pasted = restore_in_tiles(local_network, x, 2, Tiling(32, overlap=0.25, blend=False))
    inside = (..., slice(4, -4), slice(4, -4))  # the last rows see mirrored pixels instead of zeros
    torch.testing.assert_close(pasted[inside], whole[inside])
    constant = restore_in_tiles(lambda t: t.repeat_interleave(2, 2).repeat_interleave(2, 3), x, 2, Tiling(32))
    torch.testing.assert_close(constant, x.repeat_interleave(2, 2).repeat_interleave(2, 3), msg="weights add up to one")


def test_blending_hides_seams() -> None:
    """Channel attention sees the mean of a tile: neighbours differ by a constant, which pasted tiles show as a step."""

    def network(x: torch.Tensor) -> torch.Tensor:
        return x + x.mean((2, 3), keepdim=True)

    ramp = torch.linspace(0, 1, 120).expand(1, 3, 96, 120).contiguous()
    results = {blend: restore_in_tiles(network, ramp, 1, Tiling(48, 0.25, blend)) for blend in (True, False)}
    border = bands(120, Tiling(48, 0.25))[0].core_stop
    steps = {blend: y[..., border] - y[..., border - 1] for blend, y in results.items()}
    assert steps[False].min() > 0.2 and steps[True].abs().max() < 0.05
    assert results[True].diff(dim=-1).abs().max() < 0.05 and results[True].diff(dim=-2).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("network", "arch"), [("MambaIR", "tiny"), ("MambaIR", "tiny_denoise"), ("MambaIRUNet", "tiny")]
)
def test_tiles_and_whole_agree(network: str, arch: str) -> None:
    model = MODELS.build(dict(type=f"mamba_vision.{network}", arch=arch)).eval()
    if network == "MambaIRUNet":  # untrained, it adds something large: trained, a correction
        model.output.weight.data *= 0.02
    x = F.interpolate(torch.rand(1, 3, 12, 15), size=(96, 120), mode="bicubic").clamp(0, 1)
    with torch.no_grad():
        whole, tiled = model(x), restore_in_tiles(model, x, model.upscale, Tiling(64, overlap=0.25))
    assert (tiled - whole).square().mean().sqrt() < 0.01 * whole.std()


def sample(gt: torch.Tensor) -> RestorationDataSample:
    return RestorationDataSample(gt_image=gt)


def restorer(**options) -> ImageRestorer:
    settings = dict(type="mamba_vision.ImageRestorer", network=dict(type="MambaIR", arch="tiny"), **options)
    return MODELS.build(settings)


@pytest.mark.parametrize("kind", ["l1", "charbonnier", "l2"])
def test_training_step(kind: str) -> None:
    model = restorer(loss=dict(type="PixelLoss", kind=kind), mixup=1.0)
    data = dict(inputs=[torch.rand(3, 8, 9)] * 2, data_samples=[sample(torch.rand(3, 16, 18)) for _ in range(2)])
    data = model.data_preprocessor(data, training=True)
    model(**data, mode="loss")["loss"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert model(data["inputs"]).shape == (2, 3, 16, 18)


def test_prediction_is_clamped_and_tiled() -> None:
    model = restorer(tiling=dict(tile=16)).eval()
    torch.nn.init.constant_(model.network.head.upsample[0].bias, 3.0)
    samples = model(torch.rand(1, 3, 20, 35), mode="predict")
    assert samples[0].pred_image.shape == (3, 40, 70) and float(samples[0].pred_image.max()) == 1.0
    whole = model.restore(torch.rand(1, 3, 20, 35))
    assert whole.shape == (1, 3, 40, 70)


def test_losses() -> None:
    a, b = torch.zeros(1, 1, 2, 2), torch.tensor([[[[0.3, -0.4], [0.0, 0.0]]]])
    assert PixelLoss()(a, b).item() == pytest.approx(0.175)
    assert PixelLoss("l2", weight=2.0)(a, b).item() == pytest.approx(0.125)
    assert PixelLoss("charbonnier", eps=1e-12)(a, b).item() == pytest.approx(0.175, abs=1e-6)
    with pytest.raises(ValueError, match="kind: found 'l3'"):
        PixelLoss("l3")
    with pytest.raises(ValueError, match="target: found shape"):
        PixelLoss()(a, b[..., :1])


def test_errors() -> None:
    model, x = restorer(loss=dict(type="PixelLoss")), torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"gt_image: found \(32, 32\) pixels .* expected \(16, 16\) .* scale 2"):
        model(x, [sample(torch.rand(3, 32, 32))], mode="loss")
    with pytest.raises(ValueError, match="needs a sample with gt_image"):
        model(x, mode="loss")
    with pytest.raises(ValueError, match="built without one"):
        restorer()(x, [sample(x[0])], mode="loss")
    with pytest.raises(ValueError, match="mode: expected"):
        model(x, mode="train")
    with pytest.raises(ValueError, match="images of one shape"):
        model.data_preprocessor(dict(inputs=[torch.rand(3, 8, 8), torch.rand(3, 8, 9)]))
    with pytest.raises(ValueError, match="tile: expected a whole number"):
        restorer(tiling=dict(tile=8))
    with pytest.raises(ValueError, match="overlap: expected a share"):
        Tiling(overlap=0.7)
    with pytest.raises(ValueError, match=r"scale: found a result of \(16, 16\) pixels, expected \(24, 24\)"):
        restore_in_tiles(lambda t: F.interpolate(t, scale_factor=2), x, 3)


def test_progressive_patches() -> None:
    """Batches are cut to the stage that the iteration is in; the truth is cut alike."""
    from mmengine.logging import MessageHub

    model = restorer(loss=dict(type="PixelLoss"), progressive=[(10, 3, 8), (20, 1, 16)]).train()
    x = torch.rand(4, 3, 20, 24)
    truth = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    hub = MessageHub.get_instance("progressive")
    for iteration, shape in ((0, (3, 3, 8, 8)), (9, (3, 3, 8, 8)), (10, (1, 3, 16, 16)), (99, (1, 3, 16, 16))):
        hub.update_info("iter", iteration)
        a, b = model._cut(x, truth)
        assert a.shape == shape and torch.equal(b, a.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert model.eval()._cut(x, truth)[0] is x
    with pytest.raises(ValueError, match="progressive: expected rising"):
        restorer(progressive=[(20, 1, 16), (10, 3, 8)])
