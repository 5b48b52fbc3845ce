"""nnU-Net's rules, against numbers worked out by hand and the published plans of U-Mamba."""

import numpy as np
import pytest

from mamba_vision.volumes import Fingerprint, Plan, VolumeError, make_plan
from mamba_vision.volumes.fingerprint import CaseFingerprint, Intensities
from mamba_vision.volumes.planning import PRESETS, make_plans
from mamba_vision.volumes.topology import (
    Topology,
    feature_widths,
    fit_batch,
    fit_patch,
    make_topology,
    memory_estimate,
)

ORGANS = {"background": 0, **{f"organ {number}": number for number in range(1, 14)}}
TISSUE = {"background": 0, "gray": 1, "white": 2}


def fingerprint(shapes, spacings, relative_size=1.0, channels=1) -> Fingerprint:
    """Shapes and spacings along x, y, z."""
    cases = [
        CaseFingerprint(f"case {number}", tuple(shape), tuple(shape), tuple(spacing), relative_size, {1: 1.0})
        for number, (shape, spacing) in enumerate(zip(shapes, spacings))
    ]
    return Fingerprint(cases, [Intensities(80.0, 90.0, 140.0, -1000.0, 3000.0, -960.0, 330.0)] * channels)


def test_the_published_plan_of_abdomen_ct():
    """specs of U-Mamba: 40 x 224 x 192, batch 2, six stages, kernels 1 x 3 x 3 first."""
    data = fingerprint([(512, 512, 97)] * 50, [(0.79, 0.79, 2.5)] * 50)
    plan = make_plan(data, "AbdomenCT", ["CT"], ORGANS)
    assert plan.axes == (2, 1, 0) and plan.spacing == (2.5, 0.79, 0.79) and plan.median_shape == (97, 512, 512)
    assert plan.patch_size == (40, 224, 192) and plan.batch_size == 2
    network = plan.network
    assert network["strides"] == [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]
    assert network["kernel_sizes"] == [[1, 3, 3], *[[3, 3, 3]] * 5]
    assert network["features"] == [32, 64, 128, 256, 320, 320] and network["num_classes"] == 14
    assert plan.normalization == ["ct"] and plan.use_mask == [False]
    assert "median of 50 cases" in plan.reasons["spacing"] and "8 GB" in plan.reasons["patch_size"]


def test_the_published_plan_of_abdomen_mr():
    plan = make_plan(fingerprint([(320, 260, 72)] * 50, [(1.19, 1.19, 3.0)] * 50), "AbdomenMR", ["MR"], ORGANS)
    assert plan.patch_size == (48, 160, 224) and plan.batch_size == 2
    assert plan.normalization == ["zscore"]


def test_isotropic_brains_get_nnunets_cube():
    plan = make_plan(fingerprint([(140, 171, 137)] * 9, [(1, 1, 1)] * 9, 0.2, 4), "B", ["a", "b", "c", "CT"], TISSUE)
    assert plan.patch_size == (128, 128, 128) and plan.batch_size == 2
    assert plan.network["strides"] == [[1] * 3, *[[2] * 3] * 5] and plan.network["in_channels"] == 4
    assert plan.use_mask == [True, True, True, False]  # the crop leaves less than three quarters


def test_topology_by_hand():
    """Spacing 3 x 1 x 1, size 20 x 64 x 64. In-plane first: 3/1 is not below 2. Then 3/2 is: all axes, sizes
    20 x 32 x 32 -> 10 x 16 x 16. Spacing 6 x 4 x 4, size 10 x 16 x 16: all -> 5 x 8 x 8. Then only in-plane has 8
    voxels: two axes -> 4 x 4. Kernel along the first axis: 3/1 -> 1, then 3/2 -> 3 for good."""
    topology = make_topology((3, 1, 1), (20, 64, 64))
    assert topology.strides == ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    assert topology.kernel_sizes == ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert topology.divisor == (4, 16, 16) and topology.patch_size == (20, 64, 64)


def test_a_single_axis_needs_twelve_voxels():
    assert make_topology((1, 1, 1), (7, 7, 11)).strides == ((1, 1, 1),)
    assert make_topology((1, 1, 1), (7, 7, 12)).strides == ((1, 1, 1), (1, 1, 2))
    assert make_topology((1, 1, 1), (7, 7, 13)).patch_size == (7, 7, 14)  # rounded up


def test_the_memory_estimate_by_hand():
    """Two stages, 8 x 8 x 8 and 4 x 4 x 4: encoder 2*32*512 + 2*64*64, decoder (2+1)*32*512, logits 3*512."""
    topology = Topology((8, 8, 8), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3), (3, 3, 3)))
    assert memory_estimate(topology, classes=3) == 2 * 32 * 512 + 2 * 64 * 64 + 3 * 32 * 512 + 3 * 512


def test_widths():
    assert feature_widths(7) == (32, 64, 128, 256, 320, 320, 320)
    assert feature_widths(5, 8, 80) == (8, 16, 32, 64, 80)


def test_more_memory_gives_larger_patches_or_batches():
    sizes = [np.prod(fit_patch((2.5, 0.79, 0.79), (97, 512, 512), 14, gb).patch_size) for gb in (2, 4, 8, 24)]
    assert sizes == sorted(sizes) and len(set(sizes)) == 4
    whole = fit_patch((1, 1, 1), (64, 64, 64), 3, 8)
    assert whole.patch_size == (64, 64, 64)
    assert fit_batch(whole, 3, 1e12, 8) < fit_batch(whole, 3, 1e12, 24)
    assert fit_batch(whole, 3, 64**3 * 100, 24) == 5  # 5 % of the data set
    assert fit_batch(whole, 3, 64**3, 24) == 2  # never below two


def test_a_coarse_axis_takes_the_tenth_percentile():
    """z is 3.5 x coarser and has 40 voxels, less than a third of 200: percentile 10 of 3, 7, 7, 7, 7, 7 is 5."""
    shapes, spacings = [(200, 200, 40)] * 6, [(1, 1, 3), *[(1, 1, 7)] * 5]
    plan = make_plan(fingerprint(shapes, spacings), "x", ["MR"], TISSUE)
    assert plan.spacing == pytest.approx((5.0, 1.0, 1.0)) and "10th percentile" in plan.reasons["spacing"]
    fine = make_plan(fingerprint(shapes, [*[(1, 1, 0.5)] * 2, *[(1, 1, 7)] * 4]), "x", ["MR"], TISSUE)
    assert fine.spacing == pytest.approx((1 + 1e-5, 1, 1), abs=1e-9)  # not finer than the others
    many = make_plan(fingerprint([(100, 100, 40)] * 6, spacings), "x", ["MR"], TISSUE)
    assert many.spacing == (7.0, 1.0, 1.0)  # too many slices for the exception


def test_the_coarsest_axis_comes_first():
    plan = make_plan(fingerprint([(20, 200, 100)] * 3, [(4, 1, 1.5)] * 3), "x", ["MR"], TISSUE)
    assert plan.axes == (0, 2, 1) and plan.spacing == (4, 1.5, 1) and plan.median_shape == (20, 100, 200)
    assert "left-right with 4 mm" in plan.reasons["axes"]


def test_overrides_are_given_along_the_patients_axes():
    data = fingerprint([(512, 512, 97)] * 50, [(0.79, 0.79, 2.5)] * 50)
    options = {"spacing": (1, 1.5, 3), "patch_size": (90, 60, 30), "batch_size": 7, "model": "umamba_enc"}
    plan = make_plan(data, "x", ["CT"], ORGANS, **options)
    assert plan.axes == (2, 1, 0) and plan.spacing == (3, 1.5, 1) and plan.batch_size == 7
    assert plan.patch_size == (32, 64, 96) and plan.network["patch_size"] == [32, 64, 96]
    assert plan.network["placement"] == "enc"
    assert all("as asked" in plan.reasons[name] for name in ("spacing", "patch_size", "batch_size"))


@pytest.mark.parametrize("shape", [(3, 3, 3), (5, 40, 6), (6, 7, 5), (200, 200, 3)])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 0.5, 4)])
def test_tiny_volumes_still_get_a_network(shape, spacing):
    plan = make_plan(fingerprint([shape] * 2, [spacing] * 2), "x", ["MR"], TISSUE)
    strides = np.array(plan.network["strides"])
    assert len(strides) >= 2 and (strides[0] == 1).all()
    assert all(side % total == 0 for side, total in zip(plan.patch_size, strides.prod(axis=0)))
    if max(shape) < 8:
        assert "padded" in plan.reasons["patch_size"]


def test_presets_and_schemes():
    data = fingerprint([(512, 512, 97)] * 50, [(0.79, 0.79, 2.5)] * 50, channels=4)
    names = ["CT", "noNorm", "Rescale_to_0_1", "rgb_to_0_1"]
    plans = {name: make_plan(data, "x", names, ORGANS, preset=name) for name in PRESETS}
    assert plans["fast"].network["features"][0] == 8
    sizes = [np.prod(plans[name].patch_size) for name in ("fast", "default", "best")]
    assert sizes == sorted(sizes) and plans["default"].normalization == ["ct", "none", "rescale", "rgb"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"model": "unet"}, "model: expected one of umamba_bot, umamba_enc, segmamba, .*, found 'unet'"),
        ({"preset": "slow"}, "preset: expected one of fast, default, best, found 'slow'"),
        ({"spacing": (1, 1)}, "spacing: expected three positive numbers"),
        ({"patch_size": (1, 1, 0)}, "patch_size: expected three positive numbers"),
        ({"vram_gb": 0}, "vram_gb: expected a number above 0"),
        ({"batch_size": -1}, "batch_size: expected a number above 0"),
    ],
)
def test_bad_options(options, match):
    with pytest.raises(ValueError, match=match):
        make_plan(fingerprint([(64, 64, 64)], [(1, 1, 1)]), "x", ["MR"], TISSUE, **options)


@pytest.fixture
def plan():
    return make_plan(fingerprint([(64, 60, 50)] * 3, [(1, 1, 2)] * 3), "x", ["MR"], TISSUE)


def test_a_plan_comes_back_from_json(tmp_path, plan):
    assert Plan.load(plan.save(tmp_path / "plan.json")) == plan
    assert Plan.from_dict(plan.to_dict()) == plan
    assert plan.num_classes == 3 and plan.label_values.tolist() == [0, 1, 2]


def test_a_damaged_plan_is_refused(tmp_path, plan):
    content = plan.to_dict()
    bad = {
        "unknown patchsize": {**content, "patchsize": 3},
        "no spacing": {name: value for name, value in content.items() if name != "spacing"},
        "axes: expected an order": {**content, "axes": (0, 0, 1)},
        "expected positive sizes": {**content, "batch_size": 0},
        "normalization: expected one of": {**content, "normalization": ["magic"]},
        "use_mask: expected one entry a channel": {**content, "use_mask": []},
        "labels: expected background 0 first": {**content, "labels": {"a": 1}},
        "fix_geometry: expected one of": {**content, "fix_geometry": "hope"},
        "spacing: expected 3 numbers": {**content, "spacing": (1, 1)},
    }
    for match, values in bad.items():
        with pytest.raises(VolumeError, match=match):
            Plan.from_dict(values)
    with pytest.raises(VolumeError, match="no readable file"):
        Plan.load(tmp_path / "absent.json")
    for text, match in (("{", "no JSON"), ("[]", "a list")):
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(VolumeError, match=match):
            Plan.load(tmp_path / "plan.json")


def test_why_there_is_no_low_resolution_is_said():
    data = fingerprint([(28, 32, 24)] * 5, [(3, 3, 3)] * 5)
    with pytest.raises(ValueError, match=r"3d_lowres is not for .* is 19% of .* 1/2 of the voxels"):
        make_plans(data, "d", ["MR"], TISSUE, configurations=["3d_fullres", "3d_lowres"], patch_size=(16, 16, 16))
