"""ComparisonHook: the evaluator's scores of what needs no network, in a table; pictures of it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger

from mamba_vision.engine import ComparisonHook
from mamba_vision.registry import METRICS, MODELS
from mamba_vision.structures import RestorationDataSample
from mamba_vision.visualization.before_after import as_color


def test_table_and_pictures(tmp_path: Path) -> None:
    truth = [torch.rand(3, 24, 24) for _ in range(3)]
    model = MODELS.build(
        dict(type="mamba_vision.ImageRestorer", network=dict(type="mamba_vision.MambaIR", arch="tiny"))
    )
    metric = METRICS.build(dict(type="mamba_vision.RestorationMetric"))
    metric.results.append("of an earlier image")
    runner = SimpleNamespace(
        model=model, val_evaluator=Evaluator(metric), work_dir=str(tmp_path), logger=MMLogger.get_instance("comparison")
    )
    hook = ComparisonHook(pictures=2)
    for _ in range(2):  # the second validation starts anew
        hook.before_val_epoch(runner)
        for number, image in enumerate(truth):
            sample = RestorationDataSample(gt_image=image, pred_image=image)
            sample.set_metainfo({"name": f"image{number}"})
            small = torch.nn.functional.avg_pool2d(image, 2)
            hook.after_val_iter(runner, number, {"inputs": [small], "data_samples": [sample]}, [sample])
        hook.after_val_epoch(runner, {"Set5/psnr": 40.0, "Set5/ssim": 1.0})
    header, bicubic, result = (tmp_path / "comparison" / "scores.csv").read_text().splitlines()
    assert header == "images,psnr,ssim" and result == "result,40.0000,1.0000"
    enlarged = [model.baselines(torch.nn.functional.avg_pool2d(image, 2)[None])["bicubic"][0] for image in truth]
    want = METRICS.build(dict(type="mamba_vision.RestorationMetric"))
    want.process(None, [dict(pred_image=e, gt_image=t) for e, t in zip(enlarged, truth)])
    assert bicubic.split(",")[1] == f"{np.mean([r['psnr'] for r in want.results]):.4f}"
    assert sorted(f.name for f in (tmp_path / "comparison").glob("*.png")) == ["image0.png", "image1.png"]
    with pytest.raises(ValueError, match="pictures: expected a number from 0"):
        ComparisonHook(pictures=-1)


def test_bands_as_colors() -> None:
    image = np.random.rand(20, 30, 8).astype(np.float32)
    shown = as_color(image)
    low, high = np.percentile(image[..., (4, 2, 1)], (1, 99))
    np.testing.assert_allclose(shown, np.clip((image[..., (4, 2, 1)] - low) / (high - low), 0, 1), atol=1e-6)
    assert as_color(image[..., :3]) is not None and as_color(image[..., :1]).shape == (20, 30, 1)
    for bands in (2, 4, 31, 191):
        assert as_color(np.zeros((4, 4, bands))).shape == (4, 4, 3)
