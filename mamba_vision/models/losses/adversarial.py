"""Losses for images that have to look real: a discriminator with a score a pixel, and distance in VGG's features.

As in Real-ESRGAN (Wang et al., arXiv 2107.10833) and ESRGAN (arXiv 1809.00219).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torchvision.models import vgg19

from mamba_vision.models.base import Network
from mamba_vision.registry import MODELS

_VGG_MEAN, _VGG_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Places in torchvision's VGG-19: the last convolution of each of its five blocks, before the activation.
_LAYERS = {"conv1_2": 2, "conv2_2": 7, "conv3_4": 16, "conv4_4": 25, "conv5_4": 34}


@MODELS.register_module()
class UNetDiscriminator(Network):
    """How real every pixel looks: a small U-Net with spectral norms, (B, C, H, W) to logits (B, 1, H, W).

    Args:
        in_channels: C.
        width: channels of the finest level.
        init_cfg: MMEngine's.
    """

    def __init__(self, in_channels: int = 3, width: int = 64, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)

        def conv(cin: int, cout: int, kernel: int = 3, stride: int = 1) -> nn.Module:
            return spectral_norm(nn.Conv2d(cin, cout, kernel, stride, padding=1, bias=False))

        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.down = nn.ModuleList(conv(width * 2**k, width * 2 ** (k + 1), 4, 2) for k in range(3))
        self.up = nn.ModuleList(conv(width * 2 ** (k + 1), width * 2**k) for k in (2, 1, 0))
        self.last = nn.Sequential(
            conv(width, width), nn.LeakyReLU(0.2), conv(width, width), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        levels = [F.leaky_relu(self.first(x), 0.2)]
        for layer in self.down:
            levels.append(F.leaky_relu(layer(levels[-1]), 0.2))
        y = levels.pop()
        for layer in self.up:
            skip = levels.pop()
            y = F.interpolate(y, size=skip.shape[2:], mode="bilinear", align_corners=False)
            y = F.leaky_relu(layer(y), 0.2) + skip
        return self.last(y)


@MODELS.register_module()
class PerceptualLoss(Network):
    """Mean absolute difference of VGG-19's features, weighted over layers.

    Args:
        layers: name in 'conv1_2', 'conv2_2', 'conv3_4', 'conv4_4', 'conv5_4' to weight.
        weight: factor.
        init_cfg: where VGG-19's weights are, as torchvision publishes them:
            dict(type='Pretrained', checkpoint='https://download.pytorch.org/models/vgg19-dcbb9e9d.pth').

    Raises:
        ValueError: an unknown layer.
    """

    published_ignored = ("classifier.**",)

    def __init__(
        self, layers: Mapping[str, float] | None = None, weight: float = 1.0, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        default = dict(conv1_2=0.1, conv2_2=0.1, conv3_4=1.0, conv4_4=1.0, conv5_4=1.0)
        self.layers = dict(default if layers is None else layers)
        if unknown := sorted(set(self.layers) - set(_LAYERS)):
            raise ValueError(f"layers: found {unknown}, expected some of {', '.join(_LAYERS)}")
        self.weight = weight
        self.features = vgg19(weights=None).features.requires_grad_(False)
        for module in self.features:
            if isinstance(module, nn.ReLU):
                module.inplace = False  # what is kept from before an activation must stay what it is
        for name, value in (("mean", _VGG_MEAN), ("std", _VGG_STD)):
            self.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1), persistent=False)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of images (B, 3, H, W) in [0, 1], of at least 16 x 16 pixels."""
        a, b = ((x - self.mean) / self.std for x in (pred, target.detach()))
        wanted = {_LAYERS[name]: weight for name, weight in self.layers.items()}
        loss = pred.new_zeros(())
        for place, layer in enumerate(self.features[: max(wanted) + 1]):
            a, b = layer(a), layer(b)
            if place in wanted:
                loss = loss + wanted[place] * F.l1_loss(a, b)
        return self.weight * loss


def adversarial_loss(logits: Tensor, real: bool) -> Tensor:
    """Binary cross entropy of the discriminator's logits with one answer for all pixels."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
