"""S4, S4D and HiPPO: recorded cases, kernels against the recurrence, steps, errors."""

import re

import pytest
import torch
from recorded import recorded

from mamba_vision.kernels.s4 import low_rank_kernel
from mamba_vision.models.mixers import S4D, S4Block
from mamba_vision.models.mixers.hippo import diagonal, diagonal_plus_low_rank, rank_correction, transition
from mamba_vision.models.mixers.s4_kernels import SSMKernelDiag, SSMKernelDPLR
from mamba_vision.registry import MIXERS


@pytest.mark.parametrize("name", recorded("ssm_core", "dplr"))
def test_hippo_parity(golden, name: str) -> None:
    case = golden(f"ssm_core/{name}")
    states, found = case.source["kwargs"]["N"], {}
    for measure, rank in (("legs", 1), ("legt", 2), ("fourier", 1)):
        found[f"{measure}_A"], found[f"{measure}_B"] = transition(measure, states)
        found[f"{measure}_P"] = rank_correction(measure, states, rank)
        W, B, P = diagonal_plus_low_rank(measure, states, rank, b_clip=None)
        found[f"{measure}_eig_real"], found[f"{measure}_eig_imag"] = W.real, W.imag
        if measure == "legs":
            found["legs_abs_B"], found["legs_abs_P"] = B.abs(), P.abs()
            found["legs_conjP_B"] = torch.view_as_real(P.conj() * B)
    for init in ("lin", "inv", "inv2", "quad", "real", "legs"):
        found[f"diag_{init}"] = torch.view_as_real(diagonal(init, states)[0])
    assert set(found) == set(case.outputs)
    case.check(**found)


PUBLISHED = {"SSMKernelDiag": SSMKernelDiag, "SSMKernelDPLR": SSMKernelDPLR, "S4Block": S4Block, "S4D": S4D}


@pytest.mark.parametrize("name", recorded("ssm_core", *PUBLISHED))
def test_parity(golden, name: str) -> None:
    """Kernels and layers. What a recipe of weights has no place for, the case's notes say: l_kernel and the rate."""
    case = golden(f"ssm_core/{name}")
    module = PUBLISHED[case.source["class"].rpartition(".")[2]](**case.source["kwargs"])
    stored = re.search(r"l_kernel = (\d+)", case.notes)
    module.load_state_dict(case.state_dict() | {key: torch.tensor(int(stored[1])) for key in case.constant})
    outputs = {}
    if "y" in case.outputs:
        outputs["y"] = module(case.inputs()["x"])
    if "kernel" in case.outputs:
        rate = {"rate": 0.5} if "rate 0.5" in case.notes else {}
        outputs["kernel"] = getattr(module, "kernel", module)(case.outputs["kernel"]["shape"][-1], **rate)
    case.loss(**outputs).backward()
    parameters = dict(module.named_parameters())
    case.check({name: parameters[name].grad for name in case.gradients}, **outputs)
    assert sum(p.numel() for p in module.parameters()) == case.parameters
    if stored and int(stored[1]) == 0:
        assert int(module.l_kernel) == case.source["kwargs"]["l_max"]


@pytest.mark.parametrize("mode", ["dplr", "diag"])
@pytest.mark.parametrize("length", [12, 13])
def test_convolution_equals_steps(mode: str, length: int) -> None:
    """Also behind l_max: there the kernel ends, which a new S4 model of a larger l_max does not."""
    torch.manual_seed(1)
    block = S4Block(4, mode=mode, d_state=8, channels=2, n_ssm=2, transposed=False)
    x = torch.randn(2, length, 4)
    want = block(x)
    state, steps = block.start_state(2), []
    for t in range(length):
        y, state = block.step(x[:, t], state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, 1), want, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(block.eval()(x), want)


def test_a_longer_kernel_begins_like_the_shorter() -> None:
    kernel = SSMKernelDPLR(3, d_state=8, l_max=10, init="legt", rank=2)
    short = kernel(10).detach()
    long = kernel(33)
    assert int(kernel.l_kernel) == 40
    torch.testing.assert_close(long[..., :10], short, rtol=1e-3, atol=1e-5)


def test_kernel_at_the_highest_frequency() -> None:
    """Even lengths have a node where the resolvent is infinite: it takes part without rounding errors."""
    torch.manual_seed(0)
    A = torch.complex(-torch.rand(2, 3), torch.randn(2, 3)).to(torch.complex128)
    B, C, P = (torch.randn(1, 2, 3, dtype=torch.complex128) for _ in range(3))
    dt = torch.rand(2, 1).double()
    inputs = [t.requires_grad_() for t in (A, B, C, P, dt)]
    torch.autograd.gradcheck(lambda *t: low_rank_kernel(*t, 6), inputs, fast_mode=True)
    exact = low_rank_kernel(*inputs, 200)
    single = low_rank_kernel(*(t.to(torch.cfloat if t.is_complex() else torch.float32) for t in inputs), 200)
    assert (single - exact).norm() < 1e-5 * exact.norm()


def test_options_and_errors() -> None:
    assert isinstance(MIXERS.build(dict(type="S4D", d_model=4)), S4D)
    for transform in ("exp", "relu", "sigmoid", "softplus", "none"):
        kernel = SSMKernelDiag(4, d_state=8, dt_transform=transform, real_transform=transform, dt_tie=False, lr=1e-3)
        assert kernel(9).isfinite().all() and kernel.inv_dt._optim == {"weight_decay": 0.0, "lr": 1e-3}
        torch.testing.assert_close(kernel._values(1.0)[0].real, torch.full((4, 4), -0.5), atol=2e-4, rtol=0)
    with pytest.raises(ValueError, match="measure: found 'lag'"):
        transition("lag", 4)
    with pytest.raises(ValueError, match="states: found 5, expected a positive even number"):
        diagonal("lin", 5)
    with pytest.raises(ValueError, match="rank: found 1, expected at least 2 for 'legt'"):
        SSMKernelDPLR(4, init="legt")
    with pytest.raises(ValueError, match="dt_tie: found False"):
        SSMKernelDPLR(4, dt_tie=False)
    with pytest.raises(ValueError, match="n_ssm: found 3, expected a divisor of the 4 features"):
        SSMKernelDiag(4, n_ssm=3)
    with pytest.raises(ValueError, match="disc: found 'foh'"):
        SSMKernelDiag(4, disc="foh")
    with pytest.raises(ValueError, match="length: found None"):
        SSMKernelDiag(4)()
    block = S4Block(4, l_max=5, bidirectional=True, d_state=4)
    assert block(torch.randn(1, 4, 9)).shape == (1, 4, 9)
    with pytest.raises(ValueError, match="bidirectional: found True"):
        block.step(torch.zeros(1, 4), block.start_state(1))
