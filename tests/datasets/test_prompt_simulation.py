"""Prompts made from masks: they say what they should of the mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mamba_vision.datasets import prompt_simulation as simulation
from mamba_vision.datasets.prompt_slices import BrainSlicePieces
from mamba_vision.datasets.prompt_transforms import AugmentPrompted, LoadPromptImage, ResizePrompted, SimulatePrompts

MASKS = arrays.arrays(bool, st.tuples(st.integers(4, 40), st.integers(4, 40)))
FEW = settings(max_examples=40, deadline=None)


def filled(mask: np.ndarray, box: np.ndarray) -> np.ndarray:
    out = np.zeros_like(mask)
    x1, y1, x2, y2 = box.astype(int)
    out[y1:y2, x1:x2] = True
    return out


@FEW
@given(MASKS)
def test_boxes_are_tight_and_pieces_are_apart(mask):
    found = simulation.pieces(mask, least=5)
    assert len(found) <= 8 and bool(found) == mask.any()
    assert sum(piece.astype(int) for piece in found).max(initial=0) <= 1 if found else True
    assert [piece.sum() for piece in found] == sorted((piece.sum() for piece in found), reverse=True)
    assert all(piece.sum() >= 5 for piece in found[1:])
    for piece, box in zip(found, simulation.boxes_of(mask, least=5)):
        inside = filled(mask, box)
        assert not (piece & ~inside).any()
        assert inside.any(1).sum() == piece.any(1).sum() and inside.any(0).sum() == piece.any(0).sum()


@FEW
@given(MASKS, st.integers(0, 99))
def test_jitter_moves_a_side_by_a_tenth_at_most_and_stays_inside(mask, seed):
    boxes = simulation.boxes_of(mask, least=1)
    moved = simulation.jittered(boxes, mask.shape, np.random.default_rng(seed))
    lengths = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    assert (np.abs(moved - boxes) <= 0.1 * lengths + 1e-4).all()
    assert (moved[:, 2:] > moved[:, :2]).all()
    assert (moved >= 0).all() and (moved[:, 2:] <= mask.shape[::-1]).all()


def test_jitter_of_a_large_box_is_cut():
    boxes = np.float32([[100, 100, 900, 900]])
    moved = [simulation.jittered(boxes, (1000, 1000), np.random.default_rng(seed)) for seed in range(50)]
    assert 15 < np.abs(np.stack(moved) - boxes).max() <= 20


@FEW
@given(MASKS, st.integers(0, 99))
def test_points_lie_where_their_labels_say(mask, seed):
    if not mask.any():
        return
    prompts = simulation.simulate_points(mask, np.random.default_rng(seed))
    columns, rows = prompts.points.astype(int).T
    assert 1 <= len(prompts.points) <= 3 and prompts.labels[0] == 1
    assert mask[rows, columns].tolist() == [bool(label) for label in prompts.labels]
    exact = simulation.exact_points(mask)
    columns, rows = exact.points.astype(int).T
    assert mask[rows, columns].all() and len(exact.points) == len(simulation.pieces(mask))


def test_half_of_the_points_outside_lie_beside_the_mask():
    mask = np.zeros((200, 200), bool)
    mask[90:110, 90:110] = True
    close = simulation.beside(mask)
    assert close[80, 100] and not close[79, 100] and not (close & mask).any()
    drawn = [simulation.simulate_points(mask, np.random.default_rng(seed)) for seed in range(300)]
    outside = np.concatenate([one.points[one.labels == 0] for one in drawn]).astype(int)
    assert 0.4 < close[outside[:, 1], outside[:, 0]].mean() < 0.6


def test_inner_point_of_a_ring_is_on_the_ring():
    mask = np.zeros((21, 21), bool)
    mask[2:19, 2:19] = True
    assert simulation.inner_point(mask).tolist() == [10, 10]
    mask[5:16, 5:16] = False
    x, y = simulation.inner_point(mask).astype(int)
    assert mask[y, x] and mask[y - 1 : y + 2, x - 1 : x + 2].all()


def test_flawed_boxes_are_a_tenth():
    mask = np.zeros((60, 60), bool)
    mask[5:20, 5:20] = mask[35:55, 30:55] = True
    random = np.random.default_rng(0)
    counts = [len(simulation.simulate_boxes(mask, random).boxes) for _ in range(2000)]
    assert np.mean([count != 2 for count in counts]) == pytest.approx(0.1, abs=0.02)
    assert {1, 2, 3} == set(counts)


def test_kinds_are_drawn_as_often_as_the_mix_says():
    mask = np.zeros((40, 40), bool)
    mask[5:20, 5:20] = True
    step = SimulatePrompts()
    drawn = [step.transform({"mask": mask})["prompts"] for _ in range(1500)]
    boxes, points = (np.mean([len(getattr(one, name)) > 0 for one in drawn]) for name in ("boxes", "points"))
    assert boxes == pytest.approx(0.55, abs=0.05) and points == pytest.approx(0.15, abs=0.04)
    empty = step.transform({"mask": np.zeros((9, 9), bool)})["prompts"]
    assert len(empty.boxes) == len(empty.points) == 0


def test_image_and_mask_are_augmented_alike():
    mask = np.zeros((64, 64), bool)
    mask[8:20, 30:60] = True
    image = np.repeat((255 * mask).astype(np.uint8)[..., None], 3, axis=2)
    for _ in range(20):
        out = AugmentPrompted(jitter=0.0).transform({"image": image, "mask": mask})
        assert ((out["image"][..., 0] > 127) == out["mask"]).mean() > 0.98 and out["mask"].any()
    out = ResizePrompted((32, 48)).transform({"image": image, "mask": mask})
    assert out["image"].shape == (32, 48, 3) and out["mask"].shape == (32, 48)
    assert out["mask"].mean() == pytest.approx(mask.mean(), abs=0.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SimulatePrompts(mix=dict(box=0.5, circle=0.5)), "mix: found"),
        (lambda: SimulatePrompts(mix=dict(box=0.5)), "add up to 1"),
        (lambda: SimulatePrompts().transform({"prompt_mode": "gt"}), "prompt_mode: found 'gt'"),
        (lambda: SimulatePrompts().transform({"prompt_mode": "detector"}), "needs a file of boxes"),
        (lambda: ResizePrompted(0), "size: found 0"),
        (lambda: AugmentPrompted(scale=(2, 1)), "expected 0 < scale"),
        (
            lambda: LoadPromptImage().transform(
                {"image": np.zeros((4, 4, 3), np.uint8), "mask": np.zeros((5, 4), bool), "mask_path": "m.png"}
            ),
            "m.png: found 4 x 5 pixels, its image has 4 x 4",
        ),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_slices_of_the_brain():
    pytest.importorskip("nilearn")
    train, test = BrainSlicePieces("train"), BrainSlicePieces("test")
    entries = [data.get_data_info(number) for data in (train, test) for number in range(len(data))]
    assert all(entry["image"].shape == (96, 96, 3) and entry["mask"].shape == (96, 96) for entry in entries)
    assert all(entry["mask"].sum() >= 40 for entry in entries)
    slices = [{data.get_data_info(n)["path"] for n in range(len(data))} for data in (train, test)]
    assert not slices[0] & slices[1] and len(slices[1]) == 16
    whole = [entry for entry in entries if entry.get("prompt_mode") == "none"]
    assert len(whole) == len(slices[0] | slices[1])
    with pytest.raises(ValueError, match="split: found 'val'"):
        BrainSlicePieces("val")
    with pytest.raises(ValueError, match="prompt_modes: found detector"):
        BrainSlicePieces("test", prompt_modes=("detector",))
