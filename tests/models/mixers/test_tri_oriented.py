"""SegMamba's mixer: parity of its three directions, uneven runs, precision."""

import pytest
import torch
import torch.nn.functional as F
from recorded import recorded

from mamba_vision.models.mixers import TriOrientedMamba
from mamba_vision.models.mixers.init import s4d_real_log
from mamba_vision.models.mixers.published_mamba import PublishedMamba
from mamba_vision.registry import MIXERS


@pytest.mark.parametrize("name", recorded("segmamba", "Mamba"))
def test_parity(golden, name: str) -> None:
    case = golden(f"segmamba/{name}")
    mixer = PublishedMamba(**case.source["kwargs"])
    mixer.load_state_dict(case.state_dict())
    output = mixer(case.inputs()["x"])
    case.loss(output=output).backward()
    gradients = {name: parameter.grad for name, parameter in mixer.named_parameters()}
    assert isinstance(mixer, TriOrientedMamba) and set(case.gradients) <= set(gradients)
    case.check({name: gradients[name] for name in case.gradients}, output=output)


@pytest.mark.parametrize("grid", [(12,), (3, 4, 5), (2, 3, 1)])
def test_scan_inputs_are_what_is_scanned(grid: tuple[int, ...]) -> None:
    """Also where the runs do not divide the tokens, which the published code refuses."""
    mixer = TriOrientedMamba(8, nslices=None if len(grid) == 1 else 4).double()
    x = torch.randn(2, torch.Size(grid).numel(), 8, dtype=torch.float64)
    s = mixer.scan_inputs(x, grid)
    total = torch.zeros(2, 16, x.shape[1], dtype=torch.float64)
    for k in range(3):
        state = torch.zeros(2, 16, 16, dtype=torch.float64)
        for t, token in enumerate(s.order[k].tolist()):
            delta = s.delta[:, k, :, t, None]
            state = (delta * s.A[k]).exp() * state + delta * s.B[:, k, None, :, t] * s.u[:, k, :, t, None]
            y = (state * s.C[:, k, None, :, t]).sum(-1) + s.D[k] * s.u[:, k, :, t]
            total[:, :, token] += y * F.silu(s.z[:, k, :, t])
    torch.testing.assert_close(mixer.out_proj(total.transpose(1, 2)), mixer(x, grid), rtol=1e-9, atol=1e-11)


def test_every_direction_starts_alike() -> None:
    mixer = TriOrientedMamba(64)
    for suffix in ("", "_b", "_s"):
        steps = F.softplus(getattr(mixer, f"dt_proj{suffix}").bias)
        assert steps.min() >= 0.00099 and steps.max() <= 0.1001 and (getattr(mixer, f"D{suffix}") == 1).all()
        assert torch.equal(getattr(mixer, f"A{suffix}_log"), s4d_real_log(128, 16))
    assert not torch.equal(mixer.dt_proj.weight, mixer.dt_proj_b.weight)
    assert mixer.no_weight_decay() == {"A_log", "A_b_log", "A_s_log", "D", "D_b", "D_s"}


@pytest.mark.any_device
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_overflow(dtype: torch.dtype) -> None:
    mixer = TriOrientedMamba(16, nslices=4)
    with torch.no_grad():
        mixer.in_proj.weight.mul_(40)
        mixer.out_proj.weight.mul_(1e-3)
    x = 30 * torch.randn(2, 24, 16)
    want = mixer(x)
    with torch.autocast(x.device.type, dtype=dtype):
        got = mixer(x.to(dtype))
    assert got.isfinite().all() and (got.float() - want).norm() < 0.1 * want.norm()
    got.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in mixer.parameters())


def test_registered_and_refuses_nonsense() -> None:
    assert isinstance(MIXERS.build(dict(type="TriOrientedMamba", d_model=4, conv_bias=False)), TriOrientedMamba)
    with pytest.raises(ValueError, match="slices is 0"):
        TriOrientedMamba(4, nslices=0)
