"""The largest piece stays, the rest goes; what a file of steps may hold."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import measure

from mamba_vision.volumes.components import KeepLargest, apply_steps, keep_largest, load_steps, steps_as_json

LABELS = {"background": 0, "organ": 1, "lesion": 2}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(1,), (2,), (1, 2)]))
def test_equals_scikit_image(seed, labels):
    mask = np.random.default_rng(seed).choice([0, 1, 2], (9, 8, 7), p=[0.7, 0.2, 0.1]).astype(np.uint8)
    pieces = measure.label(np.isin(mask, labels), connectivity=3)
    sizes = np.bincount(pieces.ravel(), minlength=2)[1:]
    found = mask.copy()
    removed = keep_largest(found, labels)
    assert removed == sizes.sum() - sizes.max()
    kept = np.isin(found, labels)
    assert kept.sum() == sizes.max() and len(np.unique(pieces[kept])) == 1
    others = ~np.isin(mask, labels)
    np.testing.assert_array_equal(found[others], mask[others])


def test_a_union_and_then_a_label():
    mask = np.zeros((12, 5, 5), np.uint8)
    mask[0:4], mask[4, 1], mask[5, 1], mask[7] = 1, 2, 1, 2  # one piece of organ and lesion, a slab of lesion away
    union = apply_steps(mask.copy(), [KeepLargest("foreground", (1, 2))])
    assert not union[7].any() and (union[:6] == mask[:6]).all()
    both = apply_steps(mask.copy(), [KeepLargest("foreground", (1, 2)), KeepLargest("organ", (1,))])
    assert not (both[5] == 1).any() and (both[4] == mask[4]).all()
    assert keep_largest(np.zeros((3, 3, 3), np.uint8), (1,)) == 0


def test_steps_go_to_json_and_back(tmp_path):
    steps = (KeepLargest("foreground", (1, 2)), KeepLargest("lesion", (2,)))
    file = tmp_path / "postprocessing.json"
    file.write_text(json.dumps({"steps": steps_as_json(steps)}))
    assert load_steps(file, LABELS) == steps


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"steps": [{"name": "a", "labels": [7]}]}', r"labels \[7\]; expected those of the model"),
        ('{"steps": [{"labels": [1]}]}', "no usable steps"),
        ('{"steps": [{"name": "a", "labels": [0]}]}', "no usable steps"),
        ("[]", "no usable steps"),
        ("no json", "no usable steps"),
    ],
)
def test_a_file_that_is_none_is_named(content, message, tmp_path):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_steps(tmp_path / "p.json", LABELS)
    with pytest.raises(ValueError, match="find_postprocessing"):
        load_steps(tmp_path / "none.json", LABELS)
