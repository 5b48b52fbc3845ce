"""Scores of fused images: parity with the usual evaluator, other implementations, closed forms, errors."""

import numpy as np
import pytest
import torch
from recorded import recorded
from torchmetrics.functional.image import visual_information_fidelity as other_vif

from mamba_vision.evaluation.fusion_scores import (
    SCORES,
    mutual_information,
    score_fusion,
    similarity,
    visual_information_fidelity,
)
from mamba_vision.registry import METRICS


def pair(size: tuple[int, int] = (48, 56)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, *size)).astype(np.uint8)


@pytest.mark.parametrize("name", recorded("mambadfuse", "Evaluator"))
def test_parity(golden, name: str) -> None:
    case = golden(f"mambadfuse/{name}")
    images = {name: case.arrays[f"output:{name}"].reshape(case.outputs[name]["shape"]) for name in ("A8", "B8", "F8")}
    found = [score_fusion(fused, images["A8"], images["B8"]) for fused in images["F8"]]
    case.check(**{"VIFF" if name == "VIF" else name: torch.tensor([f[name] for f in found]) for name in SCORES})


def test_mutual_information_of_another_implementation() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    one, two, _ = pair() // 32
    want = metrics.mutual_info_score(one.ravel(), two.ravel())
    assert mutual_information(one, two) == pytest.approx(want, rel=1e-9)


def test_visual_information_of_another_implementation() -> None:
    one, two, _ = pair().astype(np.float64)
    two = (one + two) / 2
    want = other_vif(*(torch.from_numpy(image)[None, None] for image in (two, one)))
    assert visual_information_fidelity(two, one) == pytest.approx(want.item(), rel=1e-5)


def test_similarity_by_its_definition() -> None:
    one, two, _ = pair((9, 8)).astype(np.float64)
    c1, c2, found = (0.01 * 255) ** 2, (0.03 * 255) ** 2, []
    for i in range(3):
        for j in range(2):
            a, b = one[i : i + 7, j : j + 7].ravel(), two[i : i + 7, j : j + 7].ravel()
            (va, cov), (_, vb) = np.cov(a, b)
            top = (2 * a.mean() * b.mean() + c1) * (2 * cov + c2)
            found.append(top / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (va + vb + c2)))
    assert similarity(one, two) == pytest.approx(np.mean(found), rel=1e-9)


def test_closed_forms() -> None:
    ramp = np.tile(np.arange(64.0) * 3, (64, 1))
    board = 255.0 * (np.indices((64, 64)).sum(0) % 2)
    got = score_fusion(board, board, board)
    assert got["EN"] == 1 and got["SD"] == 127.5 and got["MI"] == pytest.approx(2 * np.log(2))
    assert got["SF"] == pytest.approx(255 * np.sqrt(2)) and got["SSIM"] == pytest.approx(2)
    assert got["VIF"] == pytest.approx(2, abs=1e-3)
    assert score_fusion(ramp, ramp, ramp, ("AG", "SF")) == pytest.approx({"AG": 3 / np.sqrt(2), "SF": 3})
    one, two, _ = pair()
    assert score_fusion((one.astype(float) + two) / 2, one, two, ("SCD",))["SCD"] > 1


def test_flat_images_have_scores() -> None:
    flat = np.full((48, 48), 7)
    assert all(np.isfinite(value) for value in score_fusion(flat, flat, flat).values())


def test_errors() -> None:
    one, two, three = pair()
    with pytest.raises(ValueError, match=r"scores: found \['PSNR'\]"):
        score_fusion(one, two, three, ("PSNR",))
    with pytest.raises(ValueError, match=r"second: found shape \(48, 55\)"):
        score_fusion(one, two, three[:, 1:])
    with pytest.raises(ValueError, match="first: found values of 0 to 510"):
        score_fusion(one, 2.0 * two.clip(0, 255), three)
    with pytest.raises(ValueError, match="VIF needs 41 a side"):
        score_fusion(*pair((40, 60)))
    with pytest.raises(ValueError, match="SSIM needs 7 a side"):
        score_fusion(*pair((6, 60)), ("SSIM",))


def test_metric_is_the_mean_over_images() -> None:
    fused, first, second = (torch.from_numpy(image / 255.0)[None] for image in pair())
    samples = [dict(pred_image=fused, first_image=first, second_image=second),
               dict(pred_image=first, first_image=first, second_image=second)]  # fmt: skip
    metric = METRICS.build(dict(type="mamba_vision.FusionMetric", prefix="MSRS"))
    metric.process(None, samples)
    got = metric.evaluate(2)
    each = [score_fusion(a, *pair()[1:]) for a in (pair()[0], pair()[1])]
    assert got == pytest.approx({f"MSRS/{name}": (each[0][name] + each[1][name]) / 2 for name in SCORES})
    assert all(type(value) is float for value in got.values())
    off = torch.rand(first.shape) * 0.9 - 0.45  # a color image's luminance lies between the levels
    off = torch.where((255 * second + off < 0) | (255 * second + off > 255), 0, off)
    metric.process(None, [dict(samples[0], second_image=second + off / 255)])
    assert metric.evaluate(1) == pytest.approx({f"MSRS/{name}": each[0][name] for name in SCORES})
    known = METRICS.build(dict(type="mamba_vision.FusionMetric", scores=["EN"], truth=True))
    known.process(None, [dict(sample, gt_image=first) for sample in samples[:1]])
    peak = 10 * np.log10(255**2 / np.mean((pair()[0].astype(float) - pair()[1]) ** 2))
    assert known.evaluate(1) == pytest.approx({"EN": each[0]["EN"], "PSNR": peak})
    with pytest.raises(ValueError, match=r"a\.png: first_image has shape \(3, 8, 8\)"):
        metric.process(None, [dict(samples[0], first_image=torch.rand(3, 8, 8), path="a.png")])
    with pytest.raises(ValueError, match=r"scores: found \['PSNR'\]"):
        METRICS.build(dict(type="mamba_vision.FusionMetric", scores=["PSNR"]))
