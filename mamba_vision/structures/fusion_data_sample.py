"""What travels with a pair of images through data set, model and metric."""

from mmengine.structures import BaseDataElement


class FusionDataSample(BaseDataElement):
    """A pair of images that become one, and what a model made of it.

    Data fields (tensors in [0, 1]): `pred_image`, the result. Of two sensors: `first_image`, `second_image`,
    (1, H, W) each. Of an image and its guide: `ms_image` (bands, h, w), `pan_image` (channels, H, W), and where they
    are known `gt_image`, the truth, and `lms_image`, the image interpolated to the guide's pixels, (bands, H, W) each.

    Meta fields: `name` (str), `path` (of the pair's first file), `scale` (int, of the guide), `dataset` (its layout's
    name, if any).
    """
