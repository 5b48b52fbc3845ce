"""FusionMamba: parity of layers, blocks and network with the published code, variants, sizes, checkpoints, errors."""

import pytest
import torch
import torch.nn.functional as F
from network_cases import compare, marked, recorded_gradients
from recorded import recorded
from torch import Tensor, nn

from mamba_vision.checkpoints import CheckpointError, load_published, published_names
from mamba_vision.models.layers.fusion_resampling import Doubling, Halving
from mamba_vision.models.mixers import FusionSSM
from mamba_vision.models.mixers.fusion_ssm import PUBLISHED_TYPES
from mamba_vision.models.networks.fusionmamba import ARCHS, PARAMETERS, FusionBody, FusionMamba, SpectralAttention
from mamba_vision.registry import MIXERS, MODELS


def check(model: nn.Module, case, **outputs: Tensor) -> None:
    case.loss(**outputs).backward()
    case.check(recorded_gradients(model, case), **outputs)


@pytest.mark.parametrize("name", recorded("fusionmamba", "Mamba"))
def test_mixer_parity(golden, name: str) -> None:
    case = golden(f"fusionmamba/{name}")
    kwargs = dict(case.source["kwargs"])
    sides = kwargs.pop("input_h", 64), kwargs.pop("input_w", 64)
    mixer = FusionSSM.published(**kwargs)
    grid = sides if mixer.scan.n_directions == 4 else None
    load_published(mixer, case.state_dict())
    check(mixer, case, output=mixer(*case.inputs().values(), grid=grid))


def one_direction(mixer: FusionSSM, s: str, u: Tensor, steers: Tensor, z: Tensor, rates: str) -> Tensor:
    """Step by step along a sequence, one image, (L, E); weights of suffix `s`, rates of another."""
    rank, N = mixer.dt_rank, mixer.d_state
    dt, B, C = getattr(mixer, f"x_proj{s}")(steers).split([rank, N, N], dim=-1)
    delta = F.softplus(getattr(mixer, f"dt_proj{s}")(dt))
    A = -getattr(mixer, f"A{rates}_log").exp()
    state, steps = torch.zeros_like(A), []
    for t in range(len(u)):
        state = (delta[t, :, None] * A).exp() * state + (delta[t] * u[t])[:, None] * B[t]
        steps.append((state * C[t]).sum(-1) + getattr(mixer, f"D{s}") * u[t])
    return torch.stack(steps) * F.silu(z)


def conv_along(mixer: FusionSSM, s: str, x: Tensor) -> Tensor:
    conv = getattr(mixer, f"conv1d{s}")
    return F.silu(conv(x.T[None])[0, :, : len(x)]).T


def as_described(mixer: FusionSSM, kind: str, x: Tensor, second: Tensor, grid: tuple[int, int]) -> Tensor:
    """The published layer, type by type, in loops. One image, (L, C)."""
    E, (H, W) = mixer.d_inner, grid
    first, other = mixer.in_proj(x), mixer.in_proj_b(second) if mixer.two_inputs else None
    x, z = (first, other[:, E:]) if kind == "v4" else (first[:, :E], first[:, E:])
    other = other[:, :E] if kind == "v4" else other
    tokens = torch.arange(H * W)
    down = tokens.view(H, W).T.flatten()
    orders = {"": tokens, "_b": tokens.flip(0), "_c": down, "_d": down.flip(0)}
    total = 0
    for suffix in mixer.suffixes:
        order = orders[suffix]
        if kind in ("v1", "v5", "v8", "v9"):  # convolved once, forward; raw where the scan runs down
            u = conv_along(mixer, "", x)
            steers = u if other is None else other
            read = u if suffix in ("", "_b") else x
            y = one_direction(mixer, "", read[order], steers[order], z[order], suffix)
        else:
            u = conv_along(mixer, suffix, x[order])
            y = one_direction(mixer, suffix, u, u if other is None else other[order], z[order], suffix)
        total = total + torch.zeros_like(y).index_copy(0, order, y)
    if kind not in ("none", "v1"):
        total = mixer.norm(total / len(mixer.suffixes))
    return mixer.out_proj(total) * (1 if mixer.gamma is None else mixer.gamma)


@pytest.mark.parametrize("kind", PUBLISHED_TYPES)
def test_every_published_type_is_as_described(kind: str) -> None:
    options = dict(d_state=3, if_devide_out=True, use_norm=True, init_layer_scale=0.5 if kind in ("v4", "v8") else None)
    mixer = FusionSSM.published(6, kind, conv_bias=kind != "v5", bias=kind == "v1", **options).double()
    for name, parameter in mixer.named_parameters():
        if name.startswith(("A", "D")):
            torch.nn.init.normal_(parameter)
    x, second = torch.randn(2, 1, 12, 6, dtype=torch.float64).requires_grad_()
    want = as_described(mixer, kind, x[0], second[0], (3, 4))
    got = mixer(x, second if mixer.two_inputs else None, grid=(3, 4))[0]
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)
    weight = torch.randn_like(want)
    parameters = list(mixer.parameters())
    for a, b in zip(*(torch.autograd.grad((y * weight).sum(), parameters) for y in (got, want))):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_an_unused_norm_in_a_file_is_passed_over() -> None:
    norm = {"norm.weight": torch.ones(12), "norm.bias": torch.zeros(12)}
    layer = FusionSSM.published(6, "v1", use_norm=True)
    assert load_published(layer, layer.state_dict() | norm).ignored == list(norm)


def test_published_types_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="bimamba_type: found 'v10'"):
        FusionSSM.published(8, "v10")
    with pytest.raises(ValueError, match="second_gates: found True"):
        FusionSSM(8, second_gates=True)


def test_resampling_parity(golden) -> None:
    case = golden("fusionmamba/resample")
    model = nn.ModuleDict(dict(down=Halving(8, 16), up=Doubling(16, 8)))
    load_published(model, case.state_dict())
    x = case.inputs()["x"]
    down = model["down"](x)
    check(model, case, down=down, up=model["up"](down, x))


@pytest.mark.parametrize("name", recorded("fusionmamba", "FusionMamba"))
def test_body_parity(golden, name: str) -> None:
    case = golden(f"fusionmamba/{name}")
    kwargs = case.source["kwargs"]
    body = FusionBody(kwargs["dim"], kwargs.get("depth", 1), kwargs.get("final", False))
    load_published(body, case.state_dict())
    found = body(**case.inputs())
    check(body, case, **dict(zip(case.outputs, (found,) if body.final else found)))


@pytest.mark.parametrize("name", recorded("fusionmamba", "SpeAttention"))
def test_spectral_attention_parity(golden, name: str) -> None:
    case = golden(f"fusionmamba/{name}")
    attention = SpectralAttention(case.source["kwargs"]["channels"])
    load_published(attention, case.state_dict())
    check(attention, case, output=attention(case.inputs()["x"]))


def run(case) -> tuple[FusionMamba, dict[str, Tensor]]:
    """The case's network, loaded as the authors save it, and every recorded output."""
    kwargs = case.source["kwargs"]
    scale = kwargs.get("scale", 4)
    model = FusionMamba(dim=kwargs["dim"], guide_channels=kwargs["pan_dim"], bands=kwargs["ms_dim"], scale=scale)
    load_published(model, {f"module.{name}": value for name, value in case.state_dict().items()})
    assert sum(p.numel() for p in model.parameters()) == case.parameters
    kept: dict[str, Tensor] = {}
    for k in range(4):
        model.get_submodule(f"stage{k}").register_forward_hook(
            lambda _, __, y, k=k: kept.update({f"stage{k}_pan": y[0], f"stage{k}_ms": y[1]})
        )
    model.stage4.register_forward_hook(lambda _, __, y: kept.update(stage4=y))
    model.spe_attn.register_forward_hook(lambda _, __, y: kept.update(attention=y))
    kept["output"] = model(**case.inputs())
    return model, {name: kept[name] for name in case.outputs}


@pytest.mark.parametrize("name", marked("fusionmamba", "U2Net", without=("test.test",), slow=("net_wv3_test256",)))
def test_network_parity(golden, name: str) -> None:
    compare(golden(f"fusionmamba/{name}"), run)


def test_published_sizes() -> None:
    assert set(PARAMETERS) == {arch for arch in ARCHS if not arch.startswith("tiny")}
    with torch.device("meta"):
        for arch, parameters in PARAMETERS.items():
            assert sum(p.numel() for p in FusionMamba(arch).parameters()) == parameters, arch
        assert len(FusionMamba("wv3").state_dict()) == 769


@pytest.mark.parametrize("arch", ["tiny", "tiny_hyper"])
@pytest.mark.parametrize(("size", "scale"), [((1, 1), 4), ((3, 5), 2), ((2, 3), 3), ((8, 4), 1)])
def test_any_image_size(arch: str, size: tuple[int, int], scale: int) -> None:
    model = FusionMamba(arch, scale=scale).eval()
    ms = torch.rand(2, model.bands, *size)
    pan = torch.rand(2, model.guide_channels, *(scale * side for side in size))
    with torch.no_grad():
        y = model(ms, pan)
        assert y.shape == (2, model.bands, *pan.shape[2:]) and y.isfinite().all()
        torch.testing.assert_close(y[1:], model(ms[1:], pan[1:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["v2", "v6", "v0", "v3", "v7", "v9", "v8"])
def test_scan_inputs_are_what_is_scanned(kind: str) -> None:
    options = PUBLISHED_TYPES[kind]
    line = options.get("scan") is not None
    grid = (6,) if line else (2, 3)
    mixer = FusionSSM(5, d_state=2, norm=False, **options).double()
    given = [torch.randn(2, 6, 5, dtype=torch.float64) for _ in range(1 + mixer.two_inputs)]
    s = mixer.scan_inputs(*given, grid=grid)
    total = torch.zeros(2, 5, 6, dtype=torch.float64)
    for k, path in enumerate(s.order.tolist()):
        state = torch.zeros(2, 5, 2, dtype=torch.float64)
        for t, token in enumerate(path):
            delta = s.delta[:, k, :, t, None]
            state = (delta * s.A[k]).exp() * state + delta * s.B[:, k, None, :, t] * s.u[:, k, :, t, None]
            y = (state * s.C[:, k, None, :, t]).sum(-1) + s.D[k] * s.u[:, k, :, t]
            total[:, :, token] += y * F.silu(s.z[:, k, :, t]) / len(s.order)
    torch.testing.assert_close(mixer.out_proj(total.transpose(1, 2)), mixer(*given, grid=grid), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shared", [False, True])
def test_gradients_against_differences(shared: bool) -> None:
    mixer = FusionSSM(3, d_state=2, two_inputs=True, shared=shared).double()
    inputs = [torch.randn(1, 6, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda x, second: mixer(x, second, (2, 3)), inputs)


def test_start_of_the_steps() -> None:
    mixer = FusionSSM(64)
    steps = F.softplus(mixer.dt_proj.bias)
    assert steps.min() >= 0.00099 and steps.max() <= 0.1001
    assert all(getattr(mixer, f"dt_proj{suffix}").bias.abs().max() <= 0.5 for suffix in ("_b", "_c", "_d"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(dtype: torch.dtype) -> None:
    model = FusionMamba("tiny")
    with torch.autocast("cpu", dtype=dtype):
        y = model(torch.rand(1, 4, 4, 4), torch.rand(1, 1, 16, 16))
    y.float().mean().backward()
    assert y.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())


def test_published_files(tmp_path) -> None:
    source = FusionMamba("tiny")
    state = {theirs: source.state_dict()[ours] for ours, theirs in published_names(source).items()}
    assert "upsample.upsamle.0.weight" in state
    torch.save(state, tmp_path / "420.pth")
    pretrained = dict(type="Pretrained", checkpoint=str(tmp_path / "420.pth"))
    model = MODELS.build(dict(type="mamba_vision.FusionMamba", arch="tiny", init_cfg=pretrained))
    model.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values()))
    with pytest.raises(CheckpointError, match="the same network with other settings"):
        load_published(FusionMamba("tiny", bands=8), tmp_path / "420.pth")


def test_errors() -> None:
    model = FusionMamba("tiny")
    with pytest.raises(ValueError, match=r"ms: found shape \(1, 3, 4, 4\), expected \(batch, 4, height, width\)"):
        model(torch.rand(1, 3, 4, 4), torch.rand(1, 1, 16, 16))
    with pytest.raises(ValueError, match=r"pan: found \(1, 1, 8, 8\), expected a batch of 1 with 16 x 16 pixels"):
        model(torch.rand(1, 4, 4, 4), torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="upsampler: found 'nearest'"):
        FusionMamba("tiny", upsampler="nearest")
    with pytest.raises(ValueError, match=r"scale: expected a whole number of at least 1, found 2\.5"):
        FusionMamba("tiny", scale=2.5)
    with pytest.raises(ValueError, match="this layer has 2 inputs"):
        FusionSSM(4, two_inputs=True)(torch.rand(1, 3, 4))
    with pytest.raises(ValueError, match="found 8 directions, expected at most 4"):
        MIXERS.build(dict(type="FusionSSM", d_model=4, scan=["cross", "cross"]))
