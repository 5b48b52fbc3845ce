"""The scan paths of a model's layers on a small grid, animated; tools/visualize_scan.py draws orders by their names.

    python tools/analysis_tools/scan_path.py localvmamba_tiny --list
    python tools/analysis_tools/scan_path.py localvmamba_tiny --layer 6 --grid 14 14 --out layer6.gif
    python tools/analysis_tools/scan_path.py vmamba_tiny --out cross.png

MODEL is a name of mamba_vision.list_models(). A .gif walks the paths, a .png draws them.
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a model")
    parser.add_argument("--layer", type=int, default=0, metavar="N", help="number of the layer (default: %(default)s)")
    parser.add_argument("--grid", type=int, nargs="+", default=[8, 8], metavar="N",
                        help="length of each axis, slowest first (default: 8 8)")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="say the directions of every layer")
    parser.add_argument("--out", type=Path, default=Path("scan_path.gif"), metavar="GIF",
                        help="animation, or picture (.png), to write (default: %(default)s)")  # fmt: skip
    args = parser.parse_args(argv)
    if args.out.suffix.lower() not in (".gif", ".png"):
        parser.error(f"--out: expected a name that ends in .gif or .png, found {args.out}")
    return args


def orders_of(name: str) -> list:
    """The scan order of every layer of a model, in the network's order.

    Raises:
        ValueError: an unknown name, or a model without scan orders.
    """
    import torch

    from mamba_vision.apis.model_names import find_variant
    from mamba_vision.scan_orders import ScanOrder

    variant = find_variant(name)
    with torch.device("meta"):
        model = variant.system(**variant.options)
    orders = getattr(model, "eval_orders", getattr(model, "orders", None))
    if orders is None:
        orders = [getattr(module, "scan", None) for module in model.modules()]
    orders = [order for order in orders if isinstance(order, ScanOrder)]
    if not orders:
        raise ValueError(f"{variant.name}: has no layer with a scan order")
    return orders


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    orders = orders_of(args.model)
    if args.list:
        for number, order in enumerate(orders):
            print(f"{number:3}  {order.name}: {', '.join(order.labels)}")
        return 0
    if not 0 <= args.layer < len(orders):
        raise ValueError(f"--layer: found {args.layer}, expected 0 to {len(orders) - 1}")
    from mamba_vision.visualization.scan_paths import scan_lines, scan_paths_animation, scan_paths_figure

    order, grid = orders[args.layer], tuple(args.grid)
    shared = dict(labels=order.labels, extra_tokens=order.extra_tokens(grid), title=f"{args.model}, layer {args.layer}")
    draw = scan_paths_animation if args.out.suffix.lower() == ".gif" else scan_paths_figure
    draw(scan_lines(order, grid), grid, path=args.out, **shared)
    print(f"written: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
