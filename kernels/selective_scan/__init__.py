"""The selective scan of Mamba-1: arguments, operator, choice of backend."""

from mamba_vision.kernels.selective_scan.op import selective_scan
from mamba_vision.kernels.selective_scan.reference import selective_scan_reference
from mamba_vision.kernels.selective_scan.step import selective_state_update

__all__ = ["selective_scan", "selective_scan_reference", "selective_state_update"]
