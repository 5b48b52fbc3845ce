"""What holds for every order on every grid: each token once where it should, and the inverse undoes it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_vision.registry import SCAN_ORDERS
from mamba_vision.scan_orders import Orders, fold, gather_tokens, return_tokens, unfold

EVERYWHERE = [
    "raster",
    dict(type="raster", reverse=True),
    "bidirectional",
    dict(type="random", paths=[0, 3], seed=7),
    "shuffle",
    dict(type="shuffle", seed=3),
    "tri_oriented",
    dict(type="tri_oriented", slices=5),
    dict(type="reorder", rate=3),
    ["raster", dict(type="reorder", rate=4)],
]
PLANE = [
    dict(type="raster", axes=[1, 0]),
    dict(type="bidirectional", axes=[1, 0]),
    *(dict(type="cross", mode=mode) for mode in ("cross", "unidi", "bidi", "rotations")),
    dict(type="local", published_reversal=False),
    dict(type="local", directions=["w3", "v_flip", "w5_flip"], published_reversal=False, column_first=True),
    dict(type="local", class_token=True, published_reversal=False),
    "zigzag",
    "hilbert",
    dict(type="hilbert", along_curve=True),
    ["cross", "zigzag", dict(type="local", directions=["w2"])],
]
VOLUME = [dict(type="raster", axes=[2, 0, 1]), dict(type="bidirectional", axes=[1, 2, 0])]
FOLDED = [
    dict(type="cascade", turn_back=True),
    dict(type="cascade", along="columns", turn_back=True),
]
FOLDED_VOLUME = [dict(type="zzvideo", layer=layer, turn_back=True) for layer in (0, 1, 2, 5)]

sides = st.integers(1, 9)
settings_ = settings(max_examples=12, deadline=None)


def expect_permutations(orders: Orders) -> None:
    """Each direction names every token once, beside zero tokens; the inverse finds each; gather and return undo."""
    for sequence, inverse in zip(orders.indices, orders.inverse):
        named = sequence[sequence >= 0]
        assert sorted(named.tolist()) == list(range(orders.tokens))
        assert torch.equal(sequence[inverse], torch.arange(orders.tokens))
    assert orders.indices.dtype == orders.inverse.dtype == torch.int64
    assert orders.indices.min() >= -1
    x = torch.randn(2, orders.tokens, 2)
    y = return_tokens(gather_tokens(x, orders), orders)
    assert torch.equal(y, x[:, None].expand_as(y))


@pytest.mark.parametrize("spec", EVERYWHERE, ids=str)
@settings_
@given(grid=st.lists(sides, min_size=1, max_size=3))
def test_any_grid(spec: object, grid: list[int]) -> None:
    order = SCAN_ORDERS.build(spec)
    orders = order(tuple(grid))
    assert len(orders.indices) == order.n_directions == len(order.labels)
    assert orders.tokens == math.prod(grid)
    expect_permutations(orders)


@pytest.mark.parametrize("spec", PLANE, ids=str)
@settings_
@given(height=sides, width=sides)
def test_planes(spec: object, height: int, width: int) -> None:
    order = SCAN_ORDERS.build(spec)
    orders = order((height, width))
    assert len(orders.indices) == order.n_directions == len(order.labels)
    expect_permutations(orders)


@pytest.mark.parametrize("spec", VOLUME, ids=str)
@settings_
@given(grid=st.tuples(sides, sides, sides))
def test_volumes(spec: object, grid: tuple[int, int, int]) -> None:
    expect_permutations(SCAN_ORDERS.build(spec)(grid))


@pytest.mark.parametrize("spec", FOLDED + FOLDED_VOLUME, ids=str)
@settings_
@given(grid=st.tuples(sides, sides, sides))
def test_folded(spec: dict, grid: tuple[int, int, int]) -> None:
    grid = grid if spec["type"] == "zzvideo" else grid[:2]
    orders = SCAN_ORDERS.build(spec)(grid)
    expect_permutations(orders)
    x = torch.randn(2, math.prod(grid), 3)
    lines = fold(x, orders)
    assert lines.shape[1] == orders.tokens
    assert torch.equal(unfold(lines, orders), x)


@settings_
@given(height=sides, width=sides, window=st.integers(1, 12))
def test_windows_are_whole(height: int, width: int, window: int) -> None:
    """Every run of K*K steps stays in one window, so does its zero padding."""
    orders = SCAN_ORDERS.build(dict(type="local", directions=[f"w{window}"]))((height, width))
    runs = orders.indices[0].reshape(-1, window * window)
    across = -(-width // window)
    assert len(runs) == across * -(-height // window)
    for number, run in enumerate(runs):
        for token in run[run >= 0].tolist():
            assert (token // width // window) * across + token % width // window == number


@settings_
@given(height=sides, width=sides)
def test_published_columns_are_right_exactly_on_squares(height: int, width: int) -> None:
    orders = SCAN_ORDERS.build(dict(type="local", directions=["v"]))((height, width))
    x = torch.arange(1.0, height * width + 1).reshape(1, -1, 1)
    back = return_tokens(gather_tokens(x, orders), orders)[:, 0]
    assert sorted(back.flatten().tolist()) == x.flatten().tolist()  # whatever it does, it loses nothing
    assert torch.equal(back, x) or height != width


@pytest.mark.parametrize("along_curve", [False, True])
@settings_
@given(height=sides, width=sides)
def test_hilbert_walks_to_neighbours(along_curve: bool, height: int, width: int) -> None:
    """Steps along the curve, which the published reading has as the inverse, go to one of the eight neighbours."""
    orders = SCAN_ORDERS.build(dict(type="hilbert", along_curve=along_curve))((height, width))
    for path in orders.indices if along_curve else orders.inverse:
        rows, cols = path // width, path % width
        far = torch.maximum(rows.diff().abs(), cols.diff().abs())
        assert not len(far) or far.max() == 1


@settings_
@given(height=sides, width=sides)
def test_zigzag_walks_to_neighbours_from_its_corner(height: int, width: int) -> None:
    orders = SCAN_ORDERS.build("zigzag")((height, width))
    corners = (0, width - 1, (height - 1) * width, height * width - 1)
    for scheme, path in enumerate(orders.indices):
        assert path[0] == corners[scheme // 2]
        assert torch.all((path // width).diff().abs() + (path % width).diff().abs() == 1)


@settings_
@given(prompts=st.integers(0, 4), height=sides, width=sides)
def test_prompts_stand_before_and_behind(prompts: int, height: int, width: int) -> None:
    order = SCAN_ORDERS.build(dict(type="prompted", prompts=prompts, order="cross"))
    orders = order((height, width))
    tokens = prompts + height * width
    assert order.n_directions == len(orders.indices) == 8
    assert orders.tokens == tokens
    for sequence in orders.indices:
        assert sequence.numel() == tokens + prompts
        assert sorted(sequence.tolist()) == sorted([*range(tokens), *range(prompts)])
        ends = {*sequence[:prompts].tolist()}, {*sequence[len(sequence) - prompts :].tolist()}
        assert ends == ({*range(prompts)}, {*range(prompts)})
    assert torch.equal(orders.indices[4:], orders.indices[:4].flip(1))
    x = torch.randn(1, tokens, 2)
    y = return_tokens(gather_tokens(x, orders), orders)
    visits = torch.where(torch.arange(tokens) < prompts, 2.0, 1.0)[:, None]
    assert torch.equal(y, (x * visits)[:, None].expand_as(y))  # a repeated token gets the sum of its results
