"""Scan orders against what the published systems recorded."""

import numpy as np
import pytest
import torch

from mamba_vision.registry import SCAN_ORDERS
from mamba_vision.scan_orders import fold, gather_tokens, orders_from_scores, return_tokens, unfold
from mamba_vision.scan_orders.hilbert import curve_positions

MODES = ("cross", "unidi", "bidi", "rotations")


@pytest.mark.parametrize("number,mode", list(enumerate(MODES)))
def test_vmamba_cross_scan_and_merge(golden, number: int, mode: str) -> None:
    case = golden("vmamba/cross_scan")
    inputs = case.inputs()
    x, y = inputs["x"], inputs["y"]  # (B, C, H, W) and (B, 4, C, H, W)
    orders = SCAN_ORDERS.build(dict(type="cross", mode=mode))(x.shape[2:])

    x_BTC = x.flatten(2).transpose(1, 2)
    xs_BKLC = gather_tokens(x_BTC, orders)
    merged_BTC = return_tokens(y.flatten(3).transpose(2, 3), orders).sum(1)
    # Channel-last inputs of the published functions are the same values in another layout, so they prove nothing new,
    # but their recorded results are checked all the same.
    for given in ("cf", "cl"):
        merged = merged_BTC.transpose(1, 2) if given == "cf" else merged_BTC
        case.check(
            **{
                f"scan_mode{number}_{given}_to_cf": xs_BKLC.transpose(2, 3),
                f"scan_mode{number}_{given}_to_cl": xs_BKLC.transpose(1, 2),
                f"merge_mode{number}_{given}_to_cf": merged,
                f"merge_mode{number}_{given}_to_cl": merged,
            }
        )


def test_vmamba_one_input_per_direction(golden) -> None:
    case = golden("vmamba/cross_scan")
    inputs = case.inputs()
    for number in (0, 2):
        orders = SCAN_ORDERS.build(dict(type="cross", mode=MODES[number]))(inputs["x4"].shape[3:])
        x_BKTC = inputs["x4"].flatten(3).transpose(2, 3)
        each = [gather_tokens(x_BKTC[:, k], orders)[:, k] for k in range(4)]
        case.check(**{f"scan1b1_mode{number}": torch.stack(each, 1).transpose(2, 3)})
    orders = SCAN_ORDERS.build("cross")(inputs["y"].shape[3:])
    merged = return_tokens(inputs["y"].flatten(3).transpose(2, 3), orders)
    case.check(merge1b1_mode0=merged.transpose(2, 3))


@pytest.mark.parametrize("name,grid", [("scans_14x14", (14, 14)), ("scans_10x13", (10, 13))])
def test_localmamba_windows(golden, name: str, grid: tuple[int, int]) -> None:
    case = golden(f"localmamba/{name}")
    inputs = case.inputs()
    directions = [key.removeprefix("sequence_") for key in inputs if key.startswith("sequence_")]
    assert directions == list(SCAN_ORDERS.build("local").directions)
    for direction in directions:
        forms = [("", False)] + ([("column_", True)] if direction in ("w2", "w7") else [])
        for prefix, column_first in forms:
            order = SCAN_ORDERS.build(dict(type="local", directions=[direction], column_first=column_first))
            orders = order(grid)
            scanned = gather_tokens(inputs["tokens"], orders)[..., 0]
            back = return_tokens(inputs[f"sequence_{direction}"].unsqueeze(-1), orders)[..., 0]
            case.check(**{f"{prefix}scan_{direction}": scanned, f"{prefix}reverse_{direction}": back})


def test_localmamba_directions_of_different_length_side_by_side(golden) -> None:
    case = golden("localmamba/scans_10x13")
    inputs = case.inputs()
    orders = SCAN_ORDERS.build("local")((10, 13))
    scanned = gather_tokens(inputs["tokens"], orders)[0, ..., 0]
    for direction, sequence in zip(SCAN_ORDERS.build("local").labels, scanned):
        length = case.outputs[f"scan_{direction}"]["shape"][-1]
        case.check(**{f"scan_{direction}": sequence[:length].reshape(1, 1, -1)})
        assert not sequence[length:].any()


def test_zigma_zigzag(golden) -> None:
    case = golden("zigma/scan_zigzag")
    for side in (4, 5):
        orders = SCAN_ORDERS.build("zigzag")((side, side))
        for scheme in range(8):
            case.check(
                **{
                    f"n{side}_scheme{scheme}_perm": orders.indices[scheme],
                    f"n{side}_scheme{scheme}_inverse": orders.inverse[scheme],
                }
            )


def test_zigma_hilbert(golden) -> None:
    case = golden("zigma/scan_hilbert")
    for side in (4, 6, 7):
        orders = SCAN_ORDERS.build("hilbert")((side, side))
        for scheme in range(8):
            case.check(
                **{
                    f"n{side}_scheme{scheme}_perm": orders.indices[scheme],
                    f"n{side}_scheme{scheme}_inverse": orders.inverse[scheme],
                }
            )
    for width, height in ((5, 3), (3, 5), (6, 4)):
        table = torch.from_numpy(curve_positions(width, height))
        case.check(**{f"gilbert_w{width}_h{height}": table})


def test_zigma_random(golden) -> None:
    case = golden("zigma/scan_random")
    for layer in range(4):
        orders = SCAN_ORDERS.build(dict(type="random", paths=[layer % 3], seed=0))((6, 6))
        case.check(**{f"layer{layer}_perm": orders.indices[0], f"layer{layer}_inverse": orders.inverse[0]})


def test_zigma_video(golden) -> None:
    case = golden("zigma/scan_video_sst")
    built = [SCAN_ORDERS.build(dict(type="zzvideo", order="sst", layer=layer)) for layer in range(14)]
    case.check(order_is_time=torch.tensor([order.along_time for order in built]))
    for layer, order in enumerate(built):
        orders = order((3, 4, 4))
        case.check(**{f"layer{layer}_perm": orders.indices[0], f"layer{layer}_inverse": orders.inverse[0]})


def test_zigma_video_folds_and_returns_frames_mirrored() -> None:
    x = torch.randn(2, 3 * 4 * 5, 6)
    inside = SCAN_ORDERS.build(dict(type="zzvideo", layer=0))((3, 4, 5))
    assert fold(x, inside).shape == (2 * 3, 20, 6)
    assert torch.equal(fold(x, inside), x.reshape(6, 20, 6))
    for layer in (2, 5):  # forward and backward along time: either way frame f gets the result of frame T-1-f
        along = SCAN_ORDERS.build(dict(type="zzvideo", layer=layer))((3, 4, 5))
        lines = fold(x, along)
        assert torch.equal(lines, x.reshape(2, 3, 20, 6).transpose(1, 2).reshape(40, 3, 6))
        back = unfold(return_tokens(gather_tokens(lines, along), along)[:, 0], along)
        assert torch.equal(back.reshape(2, 3, 20, 6), x.reshape(2, 3, 20, 6).flip(1))
        right = SCAN_ORDERS.build(dict(type="zzvideo", layer=layer, turn_back=True))((3, 4, 5))
        assert torch.equal(unfold(return_tokens(gather_tokens(lines, right), right)[:, 0], right), x)


def test_vmamba_cascade_returns_backward_results_unturned() -> None:
    x = torch.arange(2 * 3.0).reshape(1, 6, 1)
    rows = SCAN_ORDERS.build("cascade")((2, 3))
    sequences = gather_tokens(fold(x, rows), rows)[..., 0]
    assert sequences.tolist() == [[[0, 1, 2], [2, 1, 0]], [[3, 4, 5], [5, 4, 3]]]
    put = unfold(return_tokens(sequences.unsqueeze(-1), rows).sum(1), rows)
    assert put.flatten().tolist() == [2, 2, 2, 8, 8, 8]  # step j of the reversed row stays on column j
    columns = SCAN_ORDERS.build(dict(type="cascade", along="columns", turn_back=True))((2, 3))
    assert torch.equal(unfold(return_tokens(gather_tokens(fold(x, columns), columns), columns)[:, 1], columns), x)


def test_segmamba_inter_slice() -> None:
    tokens, slices = 4 * 6 * 8, 8
    orders = SCAN_ORDERS.build(dict(type="tri_oriented", slices=slices))((4, 6, 8))
    steps = np.arange(tokens)
    assert orders.indices[0].tolist() == steps.tolist()
    assert orders.indices[1].tolist() == steps[::-1].tolist()
    assert orders.indices[2].tolist() == ((steps % slices) * (tokens // slices) + steps // slices).tolist()


def test_segmamba_slices_follow_the_grid_and_may_be_uneven() -> None:
    by_depth = SCAN_ORDERS.build("tri_oriented")((2, 1, 3)).indices[2]
    assert by_depth.tolist() == [0, 3, 1, 4, 2, 5]
    uneven = SCAN_ORDERS.build(dict(type="tri_oriented", slices=2))((1, 1, 5)).indices[2]
    assert uneven.tolist() == [0, 3, 1, 4, 2]
    more_than_tokens = SCAN_ORDERS.build(dict(type="tri_oriented", slices=64))((1, 2, 2)).indices[2]
    assert more_than_tokens.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("tokens,rate", [(23, 5), (20, 5), (3, 10), (1, 10), (7, 1)])
def test_mambamil_reordering(tokens: int, rate: int) -> None:
    """The published formula on marked values: padded at the end, every rate-th one first."""
    values = np.arange(1, tokens + 1)
    groups = -(-tokens // rate)
    padded = np.concatenate([values, np.zeros(groups * rate - tokens, dtype=int)])
    expected = np.zeros_like(padded)
    for k in range(groups):
        for w in range(rate):
            expected[w * groups + k] = padded[k * rate + w]
    orders = SCAN_ORDERS.build(dict(type="reorder", rate=rate))((tokens,))
    x = torch.from_numpy(values).reshape(1, tokens, 1)
    got = gather_tokens(x, orders)
    assert got.flatten().tolist() == expected.tolist()
    assert torch.equal(return_tokens(got, orders)[:, 0], x)


def test_rsmamba_shuffle_from_recorded_scores(golden) -> None:
    """The scores that the published cases inject: their stable ascending argsort."""
    scores = golden("rsmamba/small_shuffle_gate").inputs()["shuffle.0"]
    orders = SCAN_ORDERS.build("shuffle")((6, 9), scores=scores)
    assert orders.indices.shape == (3, 54)
    assert orders.indices[0].tolist() == list(range(54))
    assert orders.indices[1].tolist() == list(range(54))[::-1]
    assert orders.indices[2].tolist() == np.argsort(scores.numpy(), kind="stable").tolist()
    assert orders.inverse[2].tolist() == np.argsort(orders.indices[2].numpy()).tolist()


def test_vim_sequence_flips_around_the_class_token() -> None:
    orders = SCAN_ORDERS.build("bidirectional")((7,))
    assert orders.indices.tolist() == [[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0]]


def test_localvim_class_token_stays_in_the_middle() -> None:
    order = SCAN_ORDERS.build(dict(type="local", directions=["h_flip", "v", "w2"], class_token=True))
    orders = order((2, 3))
    assert orders.tokens == 7
    middle = 3
    assert orders.indices[0].tolist() == [6, 5, 4, middle, 2, 1, 0, -1, -1]
    assert orders.indices[1].tolist() == [0, 4, 1, middle, 5, 2, 6, -1, -1]
    assert orders.indices[2].tolist() == [0, 1, 4, middle, 5, 2, -1, 6, -1]
    # The published reversal of a column-major sequence on a grid that is not square, the class token cut out:
    # out[b*2 + a] = y[a*3 + b] for the six others.
    others = [None] * 6
    for a in range(2):
        for b in range(3):
            others[b * 2 + a] = a * 3 + b
    steps = [step if step < middle else step + 1 for step in others]
    assert orders.inverse[1].tolist() == [*steps[:3], middle, *steps[3:]]


def test_mambairv2_sorts_each_sample_by_class() -> None:
    classes = torch.tensor([[2, 0, 1, 0], [1, 1, 0, 1]])
    loose = orders_from_scores(classes, stable=False)
    assert classes.gather(1, loose.indices[:, 0]).tolist() == [[0, 0, 1, 2], [0, 1, 1, 1]]
    orders = orders_from_scores(classes)
    assert orders.indices.tolist() == [[[1, 3, 2, 0]], [[2, 0, 1, 3]]]
    x = torch.randn(2, 4, 3)
    assert torch.equal(return_tokens(gather_tokens(x, orders), orders)[:, 0], x)
