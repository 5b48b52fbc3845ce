"""Top-1 accuracy of exported classifiers on a configuration's test data: what float16 and int8 cost on trained weights.

python tools/analysis_tools/onnx_accuracy.py configs/vim/vim-micro_digits.py fp32.onnx fp16.onnx int8.onnx
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="configuration of a classifier, whose test data are taken")
    parser.add_argument(
        "models", type=Path, nargs="+", help="exported from this configuration; the first is the measure"
    )
    parser.add_argument("--limit", type=int, help="number of pictures; default: all")
    args = parser.parse_args()

    import numpy as np

    from mamba_vision.apis.config_loading import load_config
    from mamba_vision.deploy import ModelFile
    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mmengine.registry import DefaultScope
        from mmpretrain.registry import DATASETS

    cfg = load_config(args.config)
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "mmpretrain")):
        data = DATASETS.build(cfg.test_dataloader.dataset)
    count = min(len(data), args.limit or len(data))
    models = [ModelFile(path) for path in args.models]
    for model in models:
        model.expect("classification")
    right, moved = np.zeros(len(models), int), np.zeros(len(models))
    agree = np.zeros(len(models), int)
    for number in range(count):
        sample = data[number]
        image, label = sample["inputs"].numpy().astype(np.float32), int(sample["data_samples"].gt_label)
        outs = []
        for model in models:
            given = model.info["preprocess"]
            x = image[::-1] if given["rgb"] and len(image) == 3 else image  # pipelines hand out BGR
            mean, std = (np.float32(given[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
            outs.append(model(np.ascontiguousarray((x - mean) / std)[None])[0])
        best = [int(out.argmax()) for out in outs]
        right += np.array(best) == label
        agree += np.array(best) == best[0]
        moved = np.maximum(moved, [np.abs(out - outs[0]).max() / np.abs(outs[0]).max() for out in outs])
    print(f"{count} pictures of the test data of {args.config.name}")
    for path, model, hits, same, most in zip(args.models, models, right, agree, moved):
        print(
            f"{path.name} ({model.info['precision']}, {path.stat().st_size / 1e6:.2f} MB): top-1 {hits / count:.2%}, "
            f"same class as the first {same / count:.2%}, logits moved by {most:.1e} of the largest"
        )


if __name__ == "__main__":
    sys.exit(run_tool(main))
