"""The loss that MambaDFuse is trained with (arXiv 2404.08406, equations 13 to 17): no true fused image is needed.

The fused image shall be as bright as the brighter source, as textured as the more textured one, and alike in structure
to both. Legend: B batch, c channels, H, W rows and columns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.registry import MODELS

_WINDOW, _SIGMA = 11, 1.5  # of the structural similarity
_C1, _C2 = 0.01**2, 0.03**2


def sobel_magnitude(image: Tensor) -> Tensor:
    """|horizontal| + |vertical| Sobel derivative of images (B, c, H, W), with zeros around them."""
    across = image.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([across, across.T]).unsqueeze(1)
    planes = F.conv2d(image.flatten(0, 1).unsqueeze(1), kernels, padding=1)
    return planes.abs().sum(1).view_as(image)


def zero_padded_ssim(one: Tensor, two: Tensor) -> Tensor:
    """Mean structural similarity of images (B, c, H, W) in [0, 1] (Wang et al., 2004), with zeros around them.

    A scalar. As published, the variances are not clamped at zero, and windows reach over the border.
    """
    place = torch.arange(_WINDOW, device=one.device, dtype=one.dtype) - _WINDOW // 2
    weights = torch.exp(-place.square() / (2 * _SIGMA**2))
    weights = weights / weights.sum()
    window = torch.outer(weights, weights)[None, None]

    def local_mean(image: Tensor) -> Tensor:
        return F.conv2d(image.flatten(0, 1).unsqueeze(1), window, padding=_WINDOW // 2)

    mean1, mean2 = local_mean(one), local_mean(two)
    variance1 = local_mean(one * one) - mean1.square()
    variance2 = local_mean(two * two) - mean2.square()
    covariance = local_mean(one * two) - mean1 * mean2
    brightness = (2 * mean1 * mean2 + _C1) / (mean1.square() + mean2.square() + _C1)
    return (brightness * (2 * covariance + _C2) / (variance1 + variance2 + _C2)).mean()


@MODELS.register_module()
class FusionLoss(nn.Module):
    """Intensity, texture and structure of a fused image against its two sources; the defaults are those of VIF.

    Medical images are published with texture=100, structure=50, adaptive=False, texture_channels=1.

    Args:
        intensity: weight of the mean |fused - max(sources)|.
        texture: weight of the mean difference of Sobel magnitudes from the larger one of the sources.
        structure: weight of 1 - similarity to the sources.
        adaptive: the sources' shares in the similarity go by their mean Sobel magnitude in the batch; False: halves.
        texture_channels: how many channels, from the first, the texture's term reads; None: all.

    Raises:
        ValueError: a negative weight, or no channel.
    """

    def __init__(
        self, intensity: float = 20.0, texture: float = 20.0, structure: float = 10.0, adaptive: bool = True,
        texture_channels: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, value in (("intensity", intensity), ("texture", texture), ("structure", structure)):
            if value < 0:
                raise ValueError(f"{name}: expected a weight from 0, found {value!r}")
        if texture_channels is not None and texture_channels < 1:
            raise ValueError(f"texture_channels: expected a number from 1, or None, found {texture_channels!r}")
        self.intensity, self.texture, self.structure, self.adaptive = intensity, texture, structure, adaptive
        self.texture_channels = texture_channels

    def forward(self, fused: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Scalar loss, the sum of `terms`."""
        return sum(self.terms(fused, first, second).values())

    def terms(self, fused: Tensor, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        """The weighted scalars 'texture', 'intensity' and 'structure', of images (B, c, H, W) in [0, 1].

        Raises:
            ValueError: images of different shapes.
        """
        for name, image in (("first", first), ("second", second)):
            if image.shape != fused.shape:
                found, want = tuple(image.shape), tuple(fused.shape)
                raise ValueError(f"{name}: found shape {found}, expected that of fused, {want}")
        wide = torch.promote_types(fused.dtype, torch.float32)  # variances are differences of close numbers
        fused, first, second = (image.to(wide) for image in (fused, first, second))
        texture, texture1, texture2 = (sobel_magnitude(image) for image in (fused, first, second))
        shares = self._shares(texture1.mean(), texture2.mean())
        textures = [t[:, : self.texture_channels] for t in (texture, texture1, texture2)]
        similarity = sum(share * zero_padded_ssim(image, fused) for share, image in zip(shares, (first, second)))
        return {
            "texture": self.texture * F.l1_loss(textures[0], torch.maximum(*textures[1:])),
            "intensity": self.intensity * F.l1_loss(fused, torch.maximum(first, second)),
            "structure": self.structure * (1 - similarity),
        }

    def _shares(self, texture1: Tensor, texture2: Tensor) -> tuple[Tensor | float, Tensor | float]:
        if not self.adaptive:
            return 0.5, 0.5
        total = texture1 + texture2
        share = torch.where(total > 0, texture1 / total, 0.5)  # sources without any texture count alike
        return share, 1 - share
