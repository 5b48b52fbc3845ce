"""From logits back to the scan, and never more memory than allowed."""

import tracemalloc
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_files import AXIS_CODES, LABELS, affine, labels, make_plan, voxels
from scipy import ndimage

from mamba_vision.volumes import Geometry, Volume, preprocess, restore_labels, restore_probabilities
from mamba_vision.volumes.restore import voxel_uncertainty


def one_hot(classes, count=3):
    return np.moveaxis(np.eye(count, dtype=np.float32)[classes], -1, 0)


@settings(max_examples=40, deadline=None)
@given(
    codes=AXIS_CODES,
    angles=st.tuples(*[st.floats(-0.7, 0.7)] * 3),
    axes=st.permutations([0, 1, 2]),
)
def test_without_resampling_the_way_there_and_back_is_exact(codes, angles, axes):
    turn = np.eye(4)
    turn[:3, :3] = nib.eulerangles.euler2mat(*angles)
    start = nib.Nifti1Image(labels(), affine())
    target = nib.orientations.ornt_transform(nib.io_orientation(affine()), nib.orientations.axcodes2ornt(codes))
    stored = start.as_reoriented(target)
    image = nib.Nifti1Image(voxels(), affine()).as_reoriented(target).get_fdata(dtype=np.float32)
    matrix = turn @ stored.affine
    volume = Volume(image[None], matrix)
    canonical = nib.io_orientation(matrix)[:, 0].astype(int)
    spacing = np.empty(3)
    spacing[canonical] = volume.spacing
    plan = make_plan(axes=tuple(axes), spacing=tuple(spacing[axis] for axis in axes))
    case = preprocess(volume, plan, np.asarray(stored.dataobj))
    restored = restore_labels(one_hot(case.label), case.geometry, plan)
    np.testing.assert_array_equal(restored, np.asarray(stored.dataobj))
    assert restored.dtype == np.uint8


@pytest.fixture
def case():
    """A geometry with crop, flips and resampling, and smooth logits for it."""
    volume = Volume(voxels()[None], affine((-1, 1.2, 2)))
    plan = make_plan(spacing=(1.5, 1.0, 0.8))
    geometry = preprocess(volume, plan).geometry
    logits = np.random.default_rng(0).normal(size=(3, *geometry.resampled_shape)).astype(np.float32)
    return ndimage.gaussian_filter(logits, (0, 1, 1, 1)) * 10, geometry, plan


def _directly(logits, geometry):
    """All classes at once by ndimage.zoom: (K, X, Y, Z) logits, NaN outside the crop."""
    factors = [new / old for old, new in zip(geometry.resampled_shape, geometry.cropped_shape)]
    full = np.stack([ndimage.zoom(one, factors, order=1, mode="nearest", grid_mode=True) for one in logits])
    out = np.full((len(logits), *geometry.shape), np.nan)
    view = out.transpose(0, *(1 + axis for axis in geometry.stored_axes))
    view = view[(slice(None), *(slice(None, None, -1 if flip else 1) for flip in geometry.flipped))]
    view[(slice(None), *(slice(*side) for side in geometry.box))] = full
    return out


@pytest.mark.parametrize("max_memory", [1, 20_000, 2**30])
def test_any_slab_gives_what_the_whole_gives(case, max_memory):
    logits, geometry, plan = case
    expected = _directly(logits, geometry)
    outside = np.isnan(expected[0])
    calls = []
    found = restore_labels(logits, geometry, plan, max_memory, lambda *done: calls.append(done))
    assert (found[outside] == 0).all() and outside.any()
    agree = (found == np.nan_to_num(expected).argmax(axis=0))[~outside]
    assert agree.mean() > 0.9995  # ties, up to rounding
    assert calls[-1] == (13, 13) and len(calls) == {1: 13, 2**30: 1}.get(max_memory, len(calls))
    probabilities = restore_probabilities(logits, geometry, plan, max_memory=max_memory)
    exponential = np.exp(expected - expected.max(axis=0))
    softmax = exponential / exponential.sum(axis=0)
    np.testing.assert_allclose(probabilities[:, ~outside], softmax[:, ~outside], atol=1e-5)
    assert (probabilities[0, outside] == 1).all() and (probabilities[1:, outside] == 0).all()


def test_tensors_halves_and_memory_maps(case, tmp_path):
    logits, geometry, plan = case
    expected = restore_labels(logits.astype(np.float16), geometry, plan)
    np.save(tmp_path / "logits.npy", logits.astype(np.float16))
    mapped = np.load(tmp_path / "logits.npy", mmap_mode="r")
    for same in (mapped, torch.from_numpy(logits).half().requires_grad_()):
        np.testing.assert_array_equal(restore_labels(same, geometry, plan), expected)
    out = np.lib.format.open_memmap(tmp_path / "p.npy", "w+", np.float16, (3, *geometry.shape))
    assert restore_probabilities(mapped, geometry, plan, out) is out
    np.testing.assert_allclose(out.astype(np.float32).sum(axis=0), 1, atol=2e-3)


def test_an_anisotropic_scan_takes_the_nearest_slice():
    geometry = Geometry((9, 10, 6), (2, 1, 0), (False,) * 3, (5.0, 1.0, 1.0), ((0, 6), (0, 10), (0, 9)), (12, 10, 9))
    logits = one_hot(np.broadcast_to((np.arange(12) % 3)[:, None, None], (12, 10, 9)))
    found = restore_labels(logits, geometry, make_plan(spacing=(2.5, 1.0, 1.0)))
    assert found[0, 0].tolist() == [(2 * index + 1) % 3 for index in range(6)]


def test_classes_become_label_values(case):
    logits, geometry, plan = case
    classes = restore_labels(logits, geometry, plan)
    found = restore_labels(logits, geometry, replace(plan, labels={"b": 0, "x": 7, "y": 300}))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, np.array([0, 7, 300])[classes])


def test_memory_stays_below_the_bound_whatever_the_number_of_classes(tmp_path):
    """32 classes at 160^3 are 0.5 GB of logits; the bound is 20 MB beside the 4 MB of labels."""
    size, classes, bound = 160, 32, 20 * 2**20
    geometry = Geometry((size,) * 3, (2, 1, 0), (False, True, False), (1.0,) * 3, ((0, size),) * 3, (40, 40, 40))
    names = {f"c{number}": number for number in range(classes)}
    logits = np.random.default_rng(0).normal(size=(classes, 40, 40, 40)).astype(np.float16)
    plan = make_plan(labels=names, spacing=(4.0, 4.0, 4.0))
    restore_labels(logits[:, :, :, :], geometry, plan, bound)  # fills the cache of matrices
    tracemalloc.start()
    result = restore_labels(logits, geometry, plan, bound)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < bound + result.nbytes + 2**20, peak / 2**20
    assert len(np.unique(result)) == classes


def test_what_does_not_fit(case):
    logits, geometry, plan = case
    with pytest.raises(ValueError, match=r"logits: expected shape \(3, .*found \(2, "):
        restore_labels(logits[:2], geometry, plan)
    with pytest.raises(ValueError, match="max_memory: expected bytes above 0, found 0"):
        restore_labels(logits, geometry, plan, 0)
    with pytest.raises(ValueError, match="out: expected a float array"):
        restore_probabilities(logits, geometry, plan, np.zeros((3, 4, 4, 4)))
    assert list(LABELS) == list(plan.labels)


@pytest.mark.parametrize("memory", [1, 2**30])
def test_uncertainty_is_the_entropy_over_the_highest(memory):
    even, sure = np.full(3, 1 / 3), np.array([0.0, 1.0, 0.0])
    two = np.array([0.5, 0.5, 0.0])
    probabilities = np.stack([even, sure, two, [0.7, 0.2, 0.1]], axis=1).astype(np.float32).reshape(3, 4, 1, 1)
    found = voxel_uncertainty(probabilities, make_plan(), memory)
    last = -sum(p * np.log(p) for p in (0.7, 0.2, 0.1)) / np.log(3)
    np.testing.assert_allclose(found[:, 0, 0], [1, 0, np.log(2) / np.log(3), last], atol=1e-6)
    regions = make_plan(regions={"all": [1, 2], "lesion": [2]}, region_order=[1, 2])
    pairs = np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0]], np.float32).reshape(2, 3, 1, 1)
    np.testing.assert_allclose(voxel_uncertainty(pairs, regions, memory)[:, 0, 0], [1, 1, 0], atol=1e-6)
