"""What travels with a degraded image through dataset, model and metric."""

from mmengine.structures import BaseDataElement


class RestorationDataSample(BaseDataElement):
    """An image's truth and what a model made of it.

    Data fields (tensors, (C, H, W), RGB or gray in [0, 1]): `gt_image`, truth; `pred_image`, result, scale times as
    large as the input.

    Meta fields: `name` (str), `path` (of the truth), `scale` (int), `dataset` (its layout's name, if any).
    """
