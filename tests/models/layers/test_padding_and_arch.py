"""Padding that a network's strides ask for, and settings from a variant's name."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.dimensions import check_dims, per_axis
from mamba_vision.models.layers.padding import crop_to, pad_to, padded_size

AXES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=2, max_size=3)


@settings(max_examples=40, deadline=None)
@given(AXES, st.integers(1, 2))
def test_padded_sizes_divide_and_padding_is_undone(axes: list[tuple[int, int]], least: int) -> None:
    size, multiple = zip(*axes)
    padded = padded_size(size, multiple, least)
    cells = [n // m for n, m in zip(padded, multiple)]
    assert all(n % m == 0 and n >= have for n, m, have in zip(padded, multiple, size))
    assert torch.Size(cells).numel() >= least
    if torch.Size(-(-n // m) for n, m in axes).numel() >= least:
        assert all(n - have < m for n, m, have in zip(padded, multiple, size))
    x = torch.randn(1, 2, *size)
    grown = pad_to(x, padded)
    assert grown.shape[2:] == padded and torch.equal(crop_to(grown, size), x)
    assert grown[(..., *[-1] * len(size))].equal(x[(..., *[-1] * len(size))])  # edges are repeated


def test_nothing_is_copied_where_the_size_fits() -> None:
    x = torch.randn(1, 1, 4, 8)
    assert pad_to(x, (4, 8)) is x and crop_to(x, (4, 8)) is x


def test_settings_given_beside_go_first() -> None:
    table = {"small": {"width": 8, "depth": 2}}
    given_ = {"width": None, "depth": 5, "act": None}
    assert arch_settings("Net", table, "small", given_, {"act": "relu"}) == {"width": 8, "depth": 5, "act": "relu"}
    assert table == {"small": {"width": 8, "depth": 2}}
    with pytest.raises(ValueError, match="Net: unknown arch 'big'; choose one of small"):
        arch_settings("Net", table, "big", given_, {})
    with pytest.raises(ValueError, match="Net: arch has unknown settings widht; known are width, depth, act"):
        arch_settings("Net", table, {"widht": 3}, given_, {})
    with pytest.raises(ValueError, match="Net: give width, act, or an arch of small"):
        arch_settings("Net", table, None, given_, {})


def test_axes() -> None:
    assert per_axis("stride", 2, 3) == (2, 2, 2) and per_axis("stride", [1, 2], 2) == (1, 2)
    for bad in ((1, 2), 0, "12"):
        with pytest.raises(ValueError, match="stride must be a positive integer or 3 of them"):
            per_axis("stride", bad, 3)
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3, found 1"):
        check_dims(1)
