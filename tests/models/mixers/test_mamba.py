"""The Mamba-1 layer: initialization, decoding, precision; and the recorded cases of Mamba-1 and Mamba-2."""

import re
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from recorded import recorded
from torch import nn

from mamba_vision.models.mixers import BidirectionalMamba, Mamba, Mamba2, Mamba2Simple
from mamba_vision.models.mixers.init import init_step_projection_, inverse_softplus, s4d_real_log
from mamba_vision.registry import MIXERS

PUBLISHED = {"Mamba": Mamba, "Mamba2": Mamba2, "Mamba2Simple": Mamba2Simple}


def from_case(case) -> nn.Module:
    mixer = PUBLISHED[case.source["class"].rpartition(".")[2]](**case.source["kwargs"])
    mixer.load_state_dict(case.state_dict())
    return mixer


@pytest.mark.parametrize("name", recorded("ssm_core", *PUBLISHED, without=("decode",)))
def test_parity(golden, name: str) -> None:
    case = golden(f"ssm_core/{name}")
    mixer, inputs = from_case(case), case.inputs()
    y = mixer(inputs.pop("x"), **inputs)
    case.loss(y=y).backward()
    gradients = {name: parameter.grad for name, parameter in mixer.named_parameters() if name in case.gradients}
    case.check(gradients, y=y)
    assert sum(p.numel() for p in mixer.parameters()) == case.parameters


@pytest.mark.parametrize("name", recorded("ssm_core", *PUBLISHED, only="decode"))
def test_decoding_parity(golden, name: str) -> None:
    """A prompt of as many tokens as the case says, then the others one by one."""
    case = golden(f"ssm_core/{name}")
    mixer, x = from_case(case), case.inputs()["x"]
    cache = SimpleNamespace(seqlen_offset=0, key_value_memory_dict={})
    prompt = int(re.search(r"(\d+)-token prompt", case.notes)[1])
    pieces = []
    for start, stop in pairwise([0, *range(prompt, x.shape[1] + 1)]):
        cache.seqlen_offset = start
        pieces.append(mixer(x[:, start:stop], inference_params=cache))
    conv_state, ssm_state = cache.key_value_memory_dict[mixer.layer_idx]
    case.check(y=torch.cat(pieces, dim=1), conv_state=conv_state, ssm_state=ssm_state)


def test_a_new_prompt_starts_afresh_and_any_piece_continues() -> None:
    mixer, x = Mamba(8, layer_idx=3).double(), torch.randn(2, 11, 8, dtype=torch.float64)
    cache = SimpleNamespace(seqlen_offset=0, key_value_memory_dict={})
    mixer(torch.randn_like(x), inference_params=cache)  # another sequence before
    first = mixer(x[:, :2], inference_params=cache)
    cache.seqlen_offset = 2
    rest = mixer(x[:, 2:], inference_params=cache)
    torch.testing.assert_close(torch.cat([first, rest], 1), mixer(x), rtol=1e-10, atol=1e-12)
    states = mixer.allocate_inference_cache(2)
    stepped = torch.cat([mixer.step(x[:, t : t + 1], *states)[0] for t in range(11)], 1)
    torch.testing.assert_close(stepped, mixer(x), rtol=1e-10, atol=1e-12)


def test_scan_inputs_are_what_is_scanned() -> None:
    """The implicit attention of the layer, times its input, is the layer's output."""
    mixer, x = Mamba(8).double(), torch.randn(2, 7, 8, dtype=torch.float64)
    s = mixer.scan_inputs(x)
    assert s.order is None and s.A.shape == (1, 16, 16) and s.B.shape == (2, 1, 16, 7) and s.u.shape == (2, 1, 16, 7)
    state, steps = torch.zeros(2, 16, 16, dtype=torch.float64), []
    for t in range(7):
        delta = s.delta[:, 0, :, t, None]
        state = (delta * s.A[0]).exp() * state + delta * s.B[:, 0, None, :, t] * s.u[:, 0, :, t, None]
        steps.append((state * s.C[:, 0, None, :, t]).sum(-1) + s.D[0] * s.u[:, 0, :, t])
    y = torch.stack(steps, -1) * F.silu(s.z[:, 0])
    torch.testing.assert_close(mixer.out_proj(y.transpose(1, 2)), mixer(x), rtol=1e-10, atol=1e-12)


def test_step_sizes_start_log_uniform() -> None:
    """softplus(bias) covers [dt_min, dt_max] evenly in the logarithm: quartiles within sampling error."""
    mixer = Mamba(2048, dt_min=0.001, dt_max=0.1)
    exponent = F.softplus(mixer.dt_proj.bias).log10()
    assert exponent.min() >= -3.0001 and exponent.max() <= -0.9999
    quartiles = torch.quantile(exponent, torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quartiles, torch.tensor([-2.5, -2.0, -1.5]), atol=0.06, rtol=0)
    weight = mixer.dt_proj.weight
    bound = 128**-0.5
    assert weight.abs().max() <= bound and abs(weight.std() / (bound / 3**0.5) - 1) < 0.01
    assert mixer.dt_proj.bias._no_reinit


def test_initialization_options() -> None:
    constant = init_step_projection_(nn.Linear(4, 6), dt_init="constant", dt_scale=3.0)
    assert (constant.weight == 1.5).all()
    floored = init_step_projection_(nn.Linear(4, 600), dt_min=1e-6, dt_max=1e-3, dt_init_floor=1e-4)
    torch.testing.assert_close(F.softplus(floored.bias).min(), torch.tensor(1e-4), rtol=1e-3, atol=0)
    torch.testing.assert_close(s4d_real_log(3, 4).exp(), torch.tensor([[1.0, 2, 3, 4]]).expand(3, 4))
    value = torch.tensor([1e-6, 1.0, 100.0], dtype=torch.float64)
    torch.testing.assert_close(F.softplus(inverse_softplus(value)), value)
    mixer = Mamba(8)
    assert (mixer.D == 1).all() and torch.equal(mixer.A_log, s4d_real_log(16, 16))
    assert mixer.no_weight_decay() == {"A_log", "D"} and mixer.A_log._no_weight_decay


def test_rates_stay_float32_in_half_modules() -> None:
    mixer = Mamba(8, dtype=torch.bfloat16)
    assert mixer.in_proj.weight.dtype == torch.bfloat16 and mixer.A_log.dtype == mixer.D.dtype == torch.float32
    assert mixer(torch.randn(1, 5, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert Mamba(8).bfloat16()(torch.randn(1, 5, 8, dtype=torch.bfloat16)).isfinite().all()


@pytest.mark.any_device
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["Mamba", "v1", "v2"])
def test_autocast_does_not_overflow(kind: str, dtype: torch.dtype) -> None:
    """Gate times state leaves float16 long before its factors do; the output here stays within it."""
    mixer = Mamba(16) if kind == "Mamba" else BidirectionalMamba(16, bimamba=kind)
    with torch.no_grad():
        mixer.in_proj.weight.mul_(40)
        mixer.out_proj.weight.mul_(1e-3)
    x = 30 * torch.randn(2, 40, 16)
    want = mixer(x)
    with torch.autocast(x.device.type, dtype=dtype):
        got = mixer(x.to(dtype))
    assert got.isfinite().all()
    assert (got.float() - want).norm() < 0.1 * want.norm()
    got.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in mixer.parameters())


def test_registered_and_refuses_nonsense() -> None:
    assert isinstance(MIXERS.build(dict(type="Mamba", d_model=4)), Mamba)
    with pytest.raises(ValueError, match="d_state must be positive, found 0"):
        Mamba(4, d_state=0)
    with pytest.raises(ValueError, match="dt_rank must be 'auto' or a positive integer, found 'big'"):
        Mamba(4, dt_rank="big")
    with pytest.raises(ValueError, match="dt_init must be 'random' or 'constant', found 'zero'"):
        Mamba(4, dt_init="zero")
    with pytest.raises(ValueError, match="dt_min <= dt_max"):
        Mamba(4, dt_min=0.2)
    with pytest.raises(ValueError, match="layer_idx"):
        Mamba(4)(torch.zeros(1, 2, 4), inference_params=SimpleNamespace(seqlen_offset=0, key_value_memory_dict={}))
