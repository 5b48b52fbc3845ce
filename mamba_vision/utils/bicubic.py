"""Making images smaller as MATLAB does: what data sets of super-resolution and scores of sharpening are defined by."""

import numpy as np


def bicubic_down(image: np.ndarray, scale: int) -> np.ndarray:
    """The image (H, W, C) `scale` times smaller by MATLAB's imresize, in its dtype, float32 or float64.

    Bicubic with antialiasing, a = -0.5, borders mirrored.

    Raises:
        ValueError: `scale` does not divide the sides.
    """
    import torch.nn.functional as F
    from torch import from_numpy

    if image.shape[0] % scale or image.shape[1] % scale:
        raise ValueError(f"image: sides {image.shape[:2]} are no multiples of the scale {scale}")
    margin = 4  # pixels of the result: more than half of the filter's support
    padding = ((margin * scale, margin * scale),) * 2 + ((0, 0),)
    # PyTorch's filter is MATLAB's, but it ends at the border: the border is moved out of its reach.
    x = from_numpy(np.pad(image, padding, mode="symmetric")).permute(2, 0, 1)[None].double()
    x = F.interpolate(x, scale_factor=1 / scale, mode="bicubic", antialias=True, align_corners=False)
    return x[0, :, margin:-margin, margin:-margin].permute(1, 2, 0).numpy().astype(image.dtype)
