"""Position tables: resampled and computed in the precision that is asked for."""

import torch

from mamba_vision.models.layers.positions import resize_positions
from mamba_vision.models.layers.rotary import rotary_tables, rotate


def test_double_precision_is_kept():
    """A table that is constant stays so to the last digits of float64, and turning tokens keeps their length."""
    constant = torch.full((1, 12, 4), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(resize_positions(constant, (3, 4), (5, 7)), constant[:, :1].expand(1, 35, 4))
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    turned = rotate(x, rotary_tables((3, 4), 8, like=x))
    torch.testing.assert_close(turned.square().sum(-1), x.square().sum(-1), rtol=1e-14, atol=0)
