"""What a Vim or LocalVim attends to in a picture: raw hidden attention, its rollout, and Mamba-attribution.

    python tools/analysis_tools/hidden_attention.py vim_small vim_s_midclstok_80p5acc.pth dog.jpg --out dog_maps.png
    python tools/analysis_tools/hidden_attention.py vim_tiny vim.pth dog.jpg --class 207 --query 3 9 --out patch.png

After Ali et al., "The Hidden Attention of Mamba Models" (arXiv 2403.01590). MODEL is a configuration or a name of
mamba_vision.list_models(). With --query a patch looks in place of the class token.
"""

import argparse
import sys

from mamba_vision.utils.explanation_tool import explanation_parser
from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = explanation_parser(__doc__, "hidden_attention.png")
    parser.add_argument("--start-layer", type=int, help="first layer that counts (default: 5/8 of all, 15 of 24)")
    parser.add_argument("--query", type=int, nargs=2, metavar=("ROW", "COLUMN"), help="the patch that looks")
    parser.add_argument("--corrected", action="store_true",
                        help="with the diagonal and the class token's own decay, unlike published code")  # fmt: skip
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    import torch

    from mamba_vision.apis.classification import ImageClassifierInferencer
    from mamba_vision.apis.grad_cam import explained_class, prepared
    from mamba_vision.apis.hidden_attention import attention_maps
    from mamba_vision.visualization.heat_maps import overlays_figure

    inferencer = ImageClassifierInferencer(args.model, args.checkpoint, args.device)
    inputs, picture = prepared(inferencer, args.image)
    wanted = None if args.label is None else torch.tensor([args.label])
    query = None if args.query is None else tuple(args.query)
    found = attention_maps(inferencer.model, inputs, wanted, args.start_layer, query, not args.corrected)
    said = explained_class(inferencer, found.logits, found.classes)
    maps = {key: getattr(found, key)[0].cpu().numpy() for key in ("raw", "rollout", "attribution")}
    overlays_figure(picture, maps, args.out, said)
    print(f"{args.image}: {said}; layers {found.layers[0]} to {found.layers[-1]}; written: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
