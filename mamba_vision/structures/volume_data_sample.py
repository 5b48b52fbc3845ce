"""What travels with a volume through dataset, model and metric."""

from mmengine.structures import BaseDataElement


class VolumeDataSample(BaseDataElement):
    """A volume's labels and where it came from.

    Data fields (tensors): `gt_label` (*S) integers, truth; `pred_label` (*S) integers, prediction. MMEngine's PixelData
    takes only pictures; here S has as many axes as the network has.

    Meta fields: `case` (str), `spacing` (mm an axis of S), for patches `corner` (first voxel in the prepared volume).
    """
