"""What travels with an image that prompts go with through data set, model and metric."""

from mmengine.structures import BaseDataElement


class PromptDataSample(BaseDataElement):
    """Prompts of an image, what they mean, and what a model made of them.

    Data fields (tensors): `boxes` (K, 4) float32, pixels x1, y1, x2, y2 of the network's input, half-open; `points`
    (N, 2) float32, pixels x, y; `labels` (N,), 1 foreground, 0 background; K and N may be 0. `gt_mask` (H, W) bool: of
    the input's size in training, of the file's in testing. `pred_prob` (H, W) float32 in [0, 1] and `pred_mask` (H, W)
    bool, of the file's size.

    Meta fields: `name` (str), `path` (of the image), `ori_shape` (rows, columns of the file), `dataset` (str),
    `prompt_mode` (str, see `SimulatePrompts`).
    """
