"""Selective scans of channels-last tokens along several orders."""

from mamba_vision.kernels.ordered_scan.convolution import ordered_conv1d
from mamba_vision.kernels.ordered_scan.op import ordered_scan

__all__ = ["ordered_conv1d", "ordered_scan"]
