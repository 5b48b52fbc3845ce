"""The augmentation of a planned training, as the text of its configuration: nnU-Net's, by MONAI's transforms."""

from collections.abc import Sequence
from dataclasses import dataclass

_DEGREES = {2: ("x",), 3: ("x", "y", "z")}  # about which MONAI turns


@dataclass(frozen=True)
class Augmentation:
    """What the text depends on.

    Attributes:
        patch: what the network sees, two sides for slices.
        full: nnU-Net's list, or only mirroring and brightness.
        masked: channels with 0 outside the scan's non-zero region, of `channels`.
        channels: of the image.
        previous_classes: classes that a low-resolution network found, with background; 0 without a cascade.
    """

    patch: tuple[int, ...]
    full: bool
    masked: tuple[int, ...] = ()
    channels: int = 1
    previous_classes: int = 0

    @property
    def turned(self) -> Sequence[int]:
        """Greatest rotation about each axis, degrees."""
        return _rotation(self.patch)[0]

    @property
    def enlarged(self) -> tuple[int, ...]:
        """The patch to cut before augmentation."""
        return _rotation(self.patch)[1] if self.full else self.patch

    def render(self) -> str:
        """The variables `train_pipeline` and `enlarged` (`patch_size` stands above)."""
        dims = len(self.patch)
        keys = "['image', 'label', 'previous']" if self.previous_classes else "['image', 'label']"
        smooth = "'bilinear'" if dims == 2 else "'trilinear'"
        upwards = ", upsample_mode='bicubic'" if dims == 2 else ""  # MONAI's own is for volumes alone
        others = ", 'nearest'" * (2 if self.previous_classes else 1)
        ranges = [f"range_{axis}={angle} * degree" for axis, angle in zip(_DEGREES[dims], self.turned) if angle]
        sigmas = ", ".join(f"sigma_{axis}=(0.5, 1)" for axis in "xyz"[:dims])
        flips = [f"dict(type='RandFlipd', keys={keys}, prob=0.5, spatial_axis={axis})," for axis in range(dims)]
        last = []
        if self.masked:
            only = "" if len(self.masked) == self.channels else f", channels={list(self.masked)}"
            last.append(f"dict(type='MaskOutsided', keys='image'{only}),  # 0 again outside the non-zero region")
        if self.previous_classes:
            last.append("# What the low resolution found is not always right: it is reshaped, and pieces go missing.")
            last.append(f"dict(type='RandPerturbClassesd', keys='previous', classes={self.previous_classes}),")
        brightness = "dict(type='RandScaleIntensityd', keys='image', prob=0.15, factors=0.25),"
        if not self.full:
            steps = [brightness, *flips, *last]
            head = ["# MONAI's dictionary transforms; `prob` is the chance a patch."]
            tail = ["enlarged = patch_size  # cut before augmentation"]
        else:
            head = [
                "# nnU-Net's augmentation by MONAI's dictionary transforms; `prob` is the chance a patch. Patches are",
                "# cut larger than the network wants them, so that rotations bring no empty corners.",
                "degree = 3.14159265 / 180",
            ]
            steps = [
                f"dict(type='RandRotated', keys={keys}, prob=0.2, mode=['bilinear'{others}],",
                f"     padding_mode='zeros', {', '.join(ranges)}),",
                f"dict(type='RandZoomd', keys={keys}, prob=0.2, min_zoom=0.7, max_zoom=1.4,",
                f"     mode=[{smooth}{others}], padding_mode='constant'),",
                f"dict(type='CenterSpatialCropd', keys={keys}, roi_size=patch_size),",
                "dict(type='RandGaussianNoised', keys='image', prob=0.1, std=0.316),",
                f"dict(type='RandGaussianSmoothd', keys='image', prob=0.2, {sigmas}),",
                brightness,
                "dict(type='RandScaleIntensityFixedMeand', keys='image', prob=0.15, factors=0.25, "
                "preserve_range=True),",
                f"dict(type='RandSimulateLowResolutiond', keys='image', prob=0.25, zoom_range=(0.5, 1.0){upwards}),",
                "dict(type='RandAdjustContrastd', keys='image', prob=0.1, gamma=(0.7, 1.5), invert_image=True, "
                "retain_stats=True),",
                "dict(type='RandAdjustContrastd', keys='image', prob=0.3, gamma=(0.7, 1.5), retain_stats=True),",
                *flips,
                *last,
            ]
            tail = [f"enlarged = {self.enlarged}  # cut before augmentation: room for the rotations and zooms above"]
        return "\n".join([*head, "train_pipeline = [", *(f"    {step}" for step in steps), "]", *tail, ""])


def _rotation(patch: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Greatest rotation about each axis in degrees, and the patch that still covers `patch` after rotation and zoom.

    nnU-Net's rule: +-30 degrees about every axis, or any angle in the plane when the patch is flat (its longest side
    more than three times the first); slices by any angle, or +-15 degrees when one side is 1.5 times the other. A zoom
    below one shows up to 1/0.7 of the side.
    """
    if len(patch) == 2:
        narrow = max(patch) > 1.5 * min(patch)
        return ((15,) if narrow else (180,)), _grown(patch, 1.0 if narrow else 2**0.5)
    if max(patch) > 3 * patch[0]:
        return (180, 0, 0), (patch[0], *_grown(patch[1:], 2**0.5))
    return (30, 30, 30), _grown(patch, 1.0)


def _grown(sides: Sequence[int], factor: float) -> tuple[int, ...]:
    return tuple(int(-(-side * 1.2 * factor // 1)) for side in sides)
