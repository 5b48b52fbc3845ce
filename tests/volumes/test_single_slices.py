"""Files of a single slice: read as volumes of one voxel's thickness, planned as 2d, scored in the plane."""

import nibabel as nib
import numpy as np
import pytest

from mamba_vision.evaluation import ScoreOptions, score_structures
from mamba_vision.visualization.volumes import orthogonal_slices_figure
from mamba_vision.volumes.fingerprint import CaseFingerprint, Fingerprint, Intensities
from mamba_vision.volumes.planning import make_plan, make_plans
from mamba_vision.volumes.preprocess import preprocess
from mamba_vision.volumes.reading import read_label, read_volume
from mamba_vision.volumes.restore import restore_labels
from mamba_vision.volumes.scans import find_scans
from mamba_vision.volumes.survey import survey
from mamba_vision.volumes.writing import write_labels


def _fingerprint(shape, spacing) -> Fingerprint:
    cases = [CaseFingerprint(name, shape, shape, spacing, 1.0, {1: 2.0}) for name in "abcdef"]
    return Fingerprint(cases, [Intensities(1, 1, 1, 0, 2, 0, 2)])


def _save(path, array, spacing=(0.7, 0.8, 0.5)):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1])), path)
    return path


@pytest.mark.parametrize("flat", [(30, 20), (30, 20, 1), (1, 30, 20)])
def test_there_and_back(tmp_path, flat):
    image = np.random.default_rng(0).normal(size=flat).astype(np.float32)
    path = _save(tmp_path / "scan.nii.gz", image)
    volume = read_volume(path)
    shape = (*flat, 1)[:3]
    assert volume.array.shape == (1, *shape) and volume.is_flat
    plan = make_plan(
        _fingerprint(shape, volume.spacing), "x", ["MR"], {"background": 0, "one": 1}, configuration="2d",
        preset="fast",
    )  # fmt: skip
    case = preprocess(volume, plan)
    assert case.image.shape[1] == 1
    scores = np.stack([np.zeros_like(case.image[0]), case.image[0]])
    labels = restore_labels(scores, case.geometry, plan)
    np.testing.assert_array_equal(labels, (image > image.mean()).reshape(shape))
    write_labels(tmp_path / "labels.nii.gz", labels, volume)
    again = read_label(tmp_path / "labels.nii.gz", volume)
    np.testing.assert_array_equal(again.array[0], labels)


@pytest.mark.parametrize(("axis", "thickness"), [(2, 5.0), (2, 0.1), (2, 1.0), (0, 0.1), (1, 999.0)])
def test_only_2d_is_planned_whatever_the_thickness(axis, thickness):
    shape, spacing = [200, 180, 180], [1.0, 1.0, 1.0]
    shape[axis], spacing[axis] = 1, thickness
    plans = make_plans(_fingerprint(tuple(shape), tuple(spacing)), "x", ["MR"], {"background": 0, "one": 1})
    (plan,) = plans.values()
    assert plan.configuration == "2d" and plan.axes[0] == axis
    assert plan.median_shape[0] == 1 and plan.patch_size[0] == 1 and min(plan.patch_size[1:]) >= 180
    with pytest.raises(ValueError, match="single slices: choose 2d"):
        make_plan(_fingerprint(tuple(shape), tuple(spacing)), "x", ["MR"], {"background": 0, "one": 1})


def test_a_slice_among_volumes(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in (("a", (12, 10, 8)), ("b", (12, 10, 9)), ("c", (12, 10, 1))):
        image = rng.normal(size=shape).astype(np.float32)
        _save(tmp_path / "images" / f"{name}.nii.gz", image)
        _save(tmp_path / "labels" / f"{name}.nii.gz", (image > 0).astype(np.uint8))
    seen = survey(find_scans(tmp_path), workers=1)
    assert seen.fingerprint is None
    assert [(one.case, one.found[:11], one.expected[:7]) for one in seen.problems] == [("c", "12 x 10 x 1", "volumes")]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_distances_of_a_slice_are_those_in_its_plane(axis):
    mine, true = np.zeros((2, 40, 30), np.uint8)
    mine[5:20, 5:20], true[8:20, 5:20] = 1, 1
    options = ScoreOptions(tolerance=1.0)
    (flat,) = score_structures(mine, true, (0.5, 0.8), {"one": 1}, options)
    spacing = np.insert([0.5, 0.8], axis, 0.01)  # far nearer than any pixel
    deep = [np.expand_dims(labels, axis) for labels in (mine, true)]
    (found,) = score_structures(*deep, spacing, {"one": 1}, options)
    assert (found.hd95_mm, found.assd_mm, found.surface_dice) == (flat.hd95_mm, flat.assd_mm, flat.surface_dice)
    assert found.hd95_mm == 1.5 and found.surface_dice < 1
    assert found.volume_true_ml == pytest.approx(180 * 0.5 * 0.8 * 0.01 / 1000)


def test_only_the_plane_of_a_slice_is_drawn():
    image = np.random.default_rng(0).normal(size=(30, 1, 20))
    for depth, title, size in ((5, "coronal 1/1", "ml"), (999, "picture 1/1", "pixels")):
        figure = orthogonal_slices_figure(image, (image > 0).astype(np.uint8), (1, depth, 1))
        assert [axes.get_title() for axes in figure.axes] == [title]
        assert figure.legends[0].get_texts()[0].get_text().endswith(size)
