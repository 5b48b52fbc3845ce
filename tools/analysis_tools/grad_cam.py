"""Where in a picture a classifier sees a class: Grad-CAM of any of our backbones.

    python tools/analysis_tools/grad_cam.py vmamba_tiny_s1l8 vssm1_tiny_0230s_ckpt_epoch_264.pth dog.jpg --out cam.png
    python tools/analysis_tools/grad_cam.py configs/rsmamba/rsmamba-base_uc.py uc.pth scene.tif --class 3 --layer ln1

MODEL is a configuration or a name of mamba_vision.list_models(). (Selvaraju et al., arXiv 1610.02391.)
"""

import argparse
import sys

from mamba_vision.utils.explanation_tool import explanation_parser
from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = explanation_parser(__doc__, "grad_cam.png")
    parser.add_argument(
        "--layer", help="module of the backbone that is weighed (default: the last that patches are read from)"
    )
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
