"""Where in a picture a classifier sees a class: Grad-CAM of any of our backbones.

    python tools/analysis_tools/grad_cam.py vmamba_tiny_s1l8 vssm1_tiny_0230s_ckpt_epoch_264.pth dog.jpg --out cam.png
    python tools/analysis_tools/grad_cam.py configs/rsmamba/rsmamba-base_uc.py uc.pth scene.tif --class 3 --layer ln1

MODEL is a configuration or a name of mamba_vision.list_models(). (Selvaraju et al., arXiv 1610.02391.)
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="configuration file, or name of a model")
    parser.add_argument("checkpoint", type=Path, help="weights, trained here or as published")
    parser.add_argument("image", type=Path, help="picture")
    parser.add_argument("--out", type=Path, default=Path("grad_cam.png"), metavar="PNG",
                        help="picture to write (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--class", dest="label", type=int, help="number of the class to explain (default: the likeliest)"
    )
    parser.add_argument(
        "--layer", help="module of the backbone that is weighed (default: the last that patches are read from)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    import torch

    from mamba_vision.apis.classification import ImageClassifierInferencer
    from mamba_vision.apis.grad_cam import explained_class, grad_cam, prepared
    from mamba_vision.visualization.heat_maps import overlays_figure

    inferencer = ImageClassifierInferencer(args.model, args.checkpoint, args.device)
    inputs, picture = prepared(inferencer, args.image)
    wanted = None if args.label is None else torch.tensor([args.label])
    maps, logits, classes = grad_cam(inferencer.model, inputs, wanted, args.layer)
    said = explained_class(inferencer, logits, classes)
    overlays_figure(picture, {said: maps[0].cpu().numpy()}, args.out)
    print(f"{args.image}: {said}; written: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
