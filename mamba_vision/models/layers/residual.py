"""The convolution blocks of nnU-Net's residual U-Net, with the names that its checkpoints use, for 2 and 3 axes.

Every norm is InstanceNorm (eps 1e-5, affine), every activation LeakyReLU with slope 0.01, in place on a tensor that
nothing else needs.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mamba_vision.models.layers.dimensions import CONV, INSTANCE_NORM, per_axis
from mamba_vision.models.layers.normed import norm_act, norm_act_conv

SLOPE = 0.01


def same_conv(
    dims: int, cin: int, cout: int, kernel: int | Sequence[int], stride: int | Sequence[int] = 1
) -> nn.Module:
    """Convolution with bias whose padding keeps the size at stride 1 (odd kernels)."""
    kernel, stride = per_axis("kernel", kernel, dims), per_axis("stride", stride, dims)
    return CONV[dims](cin, cout, kernel, stride, padding=tuple(k // 2 for k in kernel))


class BasicResBlock(nn.Module):
    """conv - norm - act - conv - norm, plus a strided 1x1 convolution of the input, then act.

    (B, Cin, *S) -> (B, Cout, *S / stride).
    """

    def __init__(
        self, dims: int, cin: int, cout: int, kernel: int | Sequence[int], stride: int | Sequence[int] = 1
    ) -> None:
        super().__init__()
        norm = INSTANCE_NORM[dims]
        self.conv1 = same_conv(dims, cin, cout, kernel, stride)
        self.norm1 = norm(cout, affine=True)
        self.conv2 = same_conv(dims, cout, cout, kernel)
        self.norm2 = norm(cout, affine=True)
        self.conv3 = same_conv(dims, cin, cout, 1, stride)  # used where widths agree too

    def forward(self, x: Tensor) -> Tensor:
        y = norm_act_conv(self.norm1, self.conv1(x), SLOPE, self.conv2)
        return norm_act(self.norm2, y, SLOPE, self.conv3(x))


class ConvNorm(nn.Module):
    """Convolution and norm under the names `conv` and `norm`."""

    def __init__(self, dims: int, channels: int, kernel: int | Sequence[int]) -> None:
        super().__init__()
        self.conv = same_conv(dims, channels, channels, kernel)
        self.norm = INSTANCE_NORM[dims](channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class BasicBlockD(nn.Module):
    """conv - norm - act - conv - norm, plus the input itself, then act. (B, C, *S) -> (B, C, *S)."""

    def __init__(self, dims: int, channels: int, kernel: int | Sequence[int]) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dims, channels, kernel)
        self.conv2 = ConvNorm(dims, channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        y = norm_act_conv(self.conv1.norm, self.conv1.conv(x), SLOPE, self.conv2.conv)
        return norm_act(self.conv2.norm, y, SLOPE, x)


def residual_stage(
    dims: int, cin: int, cout: int, kernel: int | Sequence[int], stride: int | Sequence[int], blocks: int
) -> nn.Sequential:
    """A BasicResBlock that changes width and size, then `blocks` - 1 blocks that keep them."""
    first = BasicResBlock(dims, cin, cout, kernel, stride)
    return nn.Sequential(first, *(BasicBlockD(dims, cout, kernel) for _ in range(blocks - 1)))


def init_leaky_convs_(model: nn.Module) -> nn.Module:
    """Kaiming normal for LeakyReLU (fan in) and zero biases for all convolutions over 2 and 3 axes, as nnU-Net has it.

    Sequences' Conv1d and Linear layers, which belong to scans, are left alone.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
