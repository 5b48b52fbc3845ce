"""MambaDFuse: parity of mixers, blocks and network with the published code, variants, checkpoints, errors."""

import pytest
import torch
import torch.nn.functional as F
from network_cases import compare, grid_of, marked, recorded_gradients
from recorded import recorded
from torch import Tensor, nn

from mamba_vision.checkpoints import CheckpointError, load_published, published_names
from mamba_vision.models.mixers import BidirectionalMamba, Mamba, MultiInputMamba
from mamba_vision.models.networks.mambadfuse import (
    ARCHS,
    PARAMETERS,
    DeepFusionBlock,
    ExchangeBlock,
    MambaBlock,
    MambaDFuse,
)
from mamba_vision.registry import MODELS


def check(model: nn.Module, case, **outputs: Tensor) -> None:
    case.loss(**outputs).backward()
    case.check(recorded_gradients(model, case), **outputs)


@pytest.mark.parametrize("name", recorded("mambadfuse", "Mamba"))
def test_mixer_parity(golden, name: str) -> None:
    case = golden(f"mambadfuse/{name}")
    mixer = MultiInputMamba.published(**case.source["kwargs"])
    load_published(mixer, case.state_dict())
    check(mixer, case, output=mixer(*case.inputs().values()))


@pytest.mark.parametrize("name", recorded("mambadfuse", "SingleMambaBlock"))
def test_block_parity(golden, name: str) -> None:
    case = golden(f"mambadfuse/{name}")
    block = MambaBlock(case.source["kwargs"]["dim"])
    load_published(block, case.state_dict())
    x, residual = case.inputs().values()
    output, residual = block(x, residual)
    check(block, case, output=output, residual=residual)


@pytest.mark.parametrize("name", recorded("mambadfuse", "TokenSwapMamba"))
def test_exchange_parity(golden, name: str) -> None:
    case = golden(f"mambadfuse/{name}")
    block = ExchangeBlock(case.source["kwargs"]["dim"])
    load_published(block, case.state_dict())
    given = case.inputs()
    one, two = block((given["I1"], given["I1_residual"]), (given["I2"], given["I2_residual"]))
    check(block, case, I1=one[0], I2=two[0], I1_residual=one[1], I2_residual=two[1])


@pytest.mark.parametrize("name", recorded("mambadfuse", "M3"))
def test_deep_fusion_parity(golden, name: str) -> None:
    case = golden(f"mambadfuse/{name}")
    block = DeepFusionBlock(case.source["kwargs"]["dim"])
    load_published(block, case.state_dict())
    given = case.inputs()
    fused, residual = block(given["fusion"], given["fusion_resi"], given["I1"], given["I2"], grid_of(case))
    check(block, case, fusion=fused, fusion_resi=residual)


def run(case) -> tuple[MambaDFuse, dict[str, Tensor]]:
    """The case's network, loaded as the authors save it, and every recorded output."""
    kwargs = case.source["kwargs"]
    same = {key: kwargs[key] for key in ("embed_dim", "img_range", "ape", "img_size", "patch_norm") if key in kwargs}
    model = MambaDFuse(in_channels=kwargs.get("in_chans", 1), **same)
    load_published(model, {"params": case.state_dict()})
    assert sum(p.numel() for p in model.parameters()) == case.parameters
    given, kept = case.inputs(), {}
    for k in (1, 2):
        model.get_submodule(f"high_level_feature_extraction{k}.7").register_forward_hook(
            lambda _, __, y, k=k: kept.update({f"feature{k}": y[0]})
        )
    rest = model.reconstruct
    model.reconstruct = lambda features: kept.update(fusion=features) or rest(features)
    kept["output"] = model(given["A"], given["B"])
    return model, {name: kept[name] for name in case.outputs}


@pytest.mark.parametrize("name", marked("mambadfuse", "MambaDFuse", without=("test_MambaD",), slow=("net_vif_128",)))
def test_network_parity(golden, name: str) -> None:
    compare(golden(f"mambadfuse/{name}"), run)


def test_published_sizes() -> None:
    assert set(PARAMETERS) == set(ARCHS) - {"tiny"}
    with torch.device("meta"):
        for arch, parameters in PARAMETERS.items():
            assert sum(p.numel() for p in MambaDFuse(arch).parameters()) == parameters, arch


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (16, 8)])
def test_any_image_size(channels: int, size: tuple[int, int]) -> None:
    model = MambaDFuse("tiny", in_channels=channels, img_range=255.0).eval()
    first, second = torch.rand(2, 2, channels, *size)
    with torch.no_grad():
        y = model(first, second)
        assert y.shape == first.shape and y.isfinite().all()
        torch.testing.assert_close(y[1:], model(first[1:], second[1:]), rtol=1e-4, atol=1e-4)


def test_scan_inputs_are_what_is_scanned() -> None:
    mixer = MultiInputMamba(4, d_state=3).double()
    given = [torch.randn(2, 5, 4, dtype=torch.float64) for _ in range(3)]
    s = mixer.scan_inputs(*given)
    total = torch.zeros(2, 8, 5, dtype=torch.float64)
    for k in range(3):
        state = torch.zeros(2, 8, 3, dtype=torch.float64)
        for t in range(5):
            delta = s.delta[:, k, :, t, None]
            state = (delta * s.A[k]).exp() * state + delta * s.B[:, k, None, :, t] * s.u[:, k, :, t, None]
            y = (state * s.C[:, k, None, :, t]).sum(-1) + s.D[k] * s.u[:, k, :, t]
            total[:, :, t] += y * F.silu(s.z[:, k, :, t])
    torch.testing.assert_close(mixer.out_proj(total.transpose(1, 2)), mixer(*given), rtol=1e-9, atol=1e-11)


def test_two_inputs_are_the_published_v3() -> None:
    """Its files hold the weights of a third input; the mean is taken on request."""
    three, two = MultiInputMamba(4, d_state=3), MultiInputMamba(4, d_state=3, inputs=2, divide=True)
    load_published(two, three.state_dict())
    x, extra = torch.randn(2, 1, 5, 4)
    silent = torch.zeros_like(x)  # a gate of zero: nothing comes of the third input
    torch.testing.assert_close(2 * two(x, extra), three(x, extra, silent))
    assert two.scan_inputs(x, extra).u.shape == (1, 2, 8, 5)
    with pytest.raises(ValueError, match="inputs: found 4, expected 2 or 3"):
        MultiInputMamba(4, inputs=4)


def test_published_types_of_the_mixer() -> None:
    """Files of all types but 'none' hold the weights of all others, used or not."""
    options = dict(d_state=3, dt_rank=2, conv_bias=False, bias=True)
    whole = MultiInputMamba.published(4, "m3", **options)
    one, *more = torch.randn(3, 2, 5, 4)
    two = MultiInputMamba.published(4, "v3", if_devide_out=True, **options)
    both = MultiInputMamba.published(4, "v2", if_devide_out=True, **options)
    for layer in (two, both):
        assert set(load_published(layer, whole.state_dict()).ignored) >= {"in_proj_extra2.bias", "D_c"}
    assert two.conv1d_b.bias is None and two(one, more[0]).shape == whole(one, *more).shape == one.shape
    plain = MultiInputMamba.published(4, None, **options)
    load_published(plain, {name: whole.state_dict()[name] for name in plain.state_dict()})
    assert isinstance(plain, Mamba) and isinstance(both, BidirectionalMamba)
    parameters = dict(both.named_parameters())
    for name in [name for name in parameters if "_b" in name and "proj_b.b" not in name]:
        torch.nn.init.zeros_(parameters[name])  # nothing comes of the second direction
    gone = both.out_proj.bias  # of no direction, so not halved
    torch.testing.assert_close(2 * (both(one) - gone), plain(one) - gone)
    with pytest.raises(ValueError, match="bimamba_type: found 'v6'"):
        MultiInputMamba.published(4, "v6")


def test_learned_positions() -> None:
    model, plain = MambaDFuse("tiny", ape=True, img_size=(6, 5)), MambaDFuse("tiny")
    assert model.absolute_pos_embed.shape == (1, 30, 8)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "absolute_pos_embed"})
    pair = torch.rand(2, 1, 1, 6, 5)
    assert not torch.allclose(model(*pair), plain(*pair))
    torch.nn.init.zeros_(model.absolute_pos_embed)
    assert torch.equal(model(*pair), plain(*pair))
    with pytest.raises(ValueError, match=r"found \(5, 6\) pixels, expected \(6, 5\)"):
        model(*pair.transpose(-1, -2))
    assert not any("token_norm" in name for name in MambaDFuse("tiny", patch_norm=False).state_dict())


def test_mixer_gradients_against_differences() -> None:
    mixer = MultiInputMamba(2, d_state=2).double()
    inputs = [torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(mixer, inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(dtype: torch.dtype) -> None:
    model = MambaDFuse("tiny")
    with torch.autocast("cpu", dtype=dtype):
        y = model(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))
    y.float().mean().backward()
    assert y.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())


def test_published_files(tmp_path) -> None:
    source = MambaDFuse("tiny", fusion_depth=5)
    state = {theirs: source.state_dict()[ours] for ours, theirs in published_names(source).items()}
    assert {"patch_embed.norm.weight", "M3_block5.norm3.body.weight", "M3_block1.multi_modal_mamba_block.A_b_log",
            "channel_exchange1.norm2.body.bias", "feature_re.0.norm.body.weight"} <= set(state)  # fmt: skip
    torch.save(state, tmp_path / "10000_E.pth")
    pretrained = dict(type="Pretrained", checkpoint=str(tmp_path / "10000_E.pth"))
    model = MODELS.build(dict(type="mamba_vision.MambaDFuse", arch="tiny", fusion_depth=5, init_cfg=pretrained))
    model.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values()))
    with pytest.raises(CheckpointError, match="the same network with other settings"):
        load_published(MambaDFuse("tiny", fusion_depth=5, embed_dim=12), tmp_path / "10000_E.pth")


def test_errors() -> None:
    model = MambaDFuse("tiny")
    with pytest.raises(ValueError, match=r"first: found shape \(1, 3, 8, 8\), expected \(batch, 1, height, width\)"):
        model(torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"second: found shape \(1, 1, 8, 9\), expected that of first"):
        model(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 9))
    with pytest.raises(ValueError, match="in_channels: expected 1 or 3, found 6"):
        MambaDFuse("tiny", in_channels=6)
    with pytest.raises(ValueError, match="fusion_depth: expected a whole number of at least 1, found 0"):
        MambaDFuse("tiny", fusion_depth=0)
    with pytest.raises(ValueError, match="inputs_BLC: found shapes"):
        MultiInputMamba(4)(torch.rand(1, 3, 4), torch.rand(1, 3, 4), torch.rand(1, 2, 4))
