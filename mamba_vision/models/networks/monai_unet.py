"""MONAI's BasicUNet under the name and with the manners of our own networks, to compare them with."""

from collections.abc import Sequence

from monai.networks.nets import BasicUNet
from torch import Tensor

from mamba_vision.models.base import Network
from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.dimensions import check_dims, check_input
from mamba_vision.models.layers.padding import crop_to, pad_to, padded_size
from mamba_vision.registry import MODELS

ARCHS = {
    "default": dict(spatial_dims=3, features=(32, 32, 64, 128, 256, 32), in_channels=1, num_classes=2),
    "tiny": dict(spatial_dims=3, features=(8, 8, 8, 16, 16, 8), in_channels=1, num_classes=3),
}
_HALVINGS = 4


@MODELS.register_module()
class MonaiUNet(Network):
    """MONAI's BasicUNet: five stages of two convolutions, halved by max pooling, in 2-D and 3-D.

    Args:
        arch: a variant of ARCHS, or a dict of the settings below; settings given beside it go before it.
        spatial_dims: 2 or 3.
        in_channels, num_classes: channels in, logits out.
        features: widths of the five stages, and of the last up-sampling.
        init_cfg: MMEngine's.

    Attributes:
        deep_supervision: False; the network has one output.

    Raises:
        ValueError: an unknown option, or not six `features`.
    """

    deep_supervision = False

    def __init__(
        self,
        arch: str | dict | None = None,
        spatial_dims: int | None = None,
        in_channels: int | None = None,
        num_classes: int | None = None,
        features: Sequence[int] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(spatial_dims=spatial_dims, in_channels=in_channels, num_classes=num_classes, features=features)
        defaults = {name: ARCHS["default"][name] for name in ("spatial_dims", "features")}
        s = arch_settings("MonaiUNet", ARCHS, arch, given, defaults)
        if len(s["features"]) != 6:
            raise ValueError(f"features must have 6 entries, found {s['features']}")
        self.spatial_dims = check_dims(s["spatial_dims"])
        self.in_channels, self.num_classes = s["in_channels"], s["num_classes"]
        self.net = BasicUNet(self.spatial_dims, self.in_channels, self.num_classes, tuple(s["features"]))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes, *S) of images or volumes (B, in_channels, *S) of any size.

        Raises:
            ValueError: wrong number of axes or channels.
        """
        check_input(x, self.spatial_dims, self.in_channels)
        size = tuple(x.shape[2:])
        padded = padded_size(size, (2**_HALVINGS,) * self.spatial_dims)
        return crop_to(self.net(pad_to(x, padded)), size)
