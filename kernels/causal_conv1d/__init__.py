"""The causal depthwise convolution of the Mamba layers."""

from mamba_vision.kernels.causal_conv1d.op import causal_conv1d
from mamba_vision.kernels.causal_conv1d.reference import causal_conv1d_reference
from mamba_vision.kernels.causal_conv1d.step import causal_conv1d_update

__all__ = ["causal_conv1d", "causal_conv1d_reference", "causal_conv1d_update"]
