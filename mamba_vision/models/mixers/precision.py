"""Where a mixer may compute in half precision, and where not.

float16 ends at 65504: a gate times a state leaves it long before either factor does, and the output projection would
see infinities (the NaN losses that users of the published systems report). bfloat16 has float32's range, so there only
the scan itself, which the ops do in float32 anyway, needs care.
"""

import torch
from torch import Tensor


def in_float16_region(x: Tensor) -> bool:
    """Whether operations on x are autocast to float16 here: a mixer then leaves autocast and computes in float32."""
    device = x.device.type
    if device == "meta":  # has no autocast to ask for
        return False
    return torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
