"""The recurrences of the toolkit: selective scan, causal convolution, scan along an order, Mamba-2. See README.md."""

from mamba_vision.kernels import flops  # noqa: F401 (tells PyTorch's counter what the ops cost)
from mamba_vision.kernels.add_norm import add_norm, gated_norm, norm_tokens
from mamba_vision.kernels.backends import BackendError, backend_for, use_backend
from mamba_vision.kernels.causal_conv1d import causal_conv1d, causal_conv1d_update
from mamba_vision.kernels.instance_norm import instance_norm
from mamba_vision.kernels.ordered_scan import ordered_conv1d, ordered_scan
from mamba_vision.kernels.selective_scan import selective_scan, selective_state_update
from mamba_vision.kernels.ssd import ssd

__all__ = [
    "BackendError",
    "add_norm",
    "backend_for",
    "causal_conv1d",
    "causal_conv1d_update",
    "gated_norm",
    "instance_norm",
    "norm_tokens",
    "ordered_conv1d",
    "ordered_scan",
    "selective_scan",
    "selective_state_update",
    "ssd",
    "use_backend",
]
