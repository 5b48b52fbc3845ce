"""The parameters of one directional branch, kept on the mixer under the names that published checkpoints use.

A branch is causal convolution, projection to (step, B, C), step projection, A and D. A mixer with several directions
has one set a direction, told apart by a suffix: "", "_b", "_s" as in Vim and SegMamba, "_0", "_1" as in LocalVim.
"""

import math

import torch
from torch import Tensor, nn

from mamba_vision.models.mixers.init import init_step_projection_, s4d_real_log


def step_rank(dt_rank: int | str, d_model: int) -> int:
    """dt_rank as a number: 'auto' is ceil(d_model / 16).

    Raises:
        ValueError: neither 'auto' nor a positive integer.
    """
    if dt_rank == "auto":
        return math.ceil(d_model / 16)
    if not isinstance(dt_rank, int) or dt_rank < 1:
        raise ValueError(f"dt_rank must be 'auto' or a positive integer, found {dt_rank!r}")
    return dt_rank


def add_branch(
    mixer: nn.Module,
    suffix: str,
    channels: int,
    state: int,
    rank: int,
    width: int,
    conv_bias: bool = True,
    steps: dict | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Give `mixer` the modules and parameters of the branch `suffix`; `steps` goes to init_step_projection_."""
    factory = {"device": device, "dtype": dtype}
    conv = nn.Conv1d(channels, channels, width, groups=channels, padding=width - 1, bias=conv_bias, **factory)
    setattr(mixer, f"conv1d{suffix}", conv)
    setattr(mixer, f"x_proj{suffix}", nn.Linear(channels, rank + 2 * state, bias=False, **factory))
    projection = nn.Linear(rank, channels, bias=True, **factory)
    setattr(mixer, f"dt_proj{suffix}", init_step_projection_(projection, **(steps or {})))
    # Rates and skip stay float32 whatever `dtype`: exp of a half-precision logarithm may already be infinite.
    rates = nn.Parameter(s4d_real_log(channels, state, device))
    skip = nn.Parameter(torch.ones(channels, device=device, dtype=torch.float32))
    for name, parameter in ((rates_name(suffix), rates), (f"D{suffix}", skip)):
        parameter._no_weight_decay = True  # the mark that mamba_ssm's users look for; no_weight_decay() says it by name
        mixer.register_parameter(name, parameter)


def rates_name(suffix: str) -> str:
    """Name of the branch's log(-A): a letter stands inside it (A_b_log), a number behind it (A_log_0)."""
    return f"A_log{suffix}" if suffix[1:].isdigit() else f"A{suffix}_log"


def branch_rates(mixer: nn.Module, suffix: str = "") -> Tensor:
    """A = -exp(A_log), (channels, state), in at least float32."""
    log = getattr(mixer, rates_name(suffix))
    return -torch.exp(log if log.dtype == torch.float64 else log.float())
