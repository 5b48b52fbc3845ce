"""Draw a scan order: one panel a direction, tokens coloured by step, arrows along the path.

    python tools/visualize_scan.py --list
    python tools/visualize_scan.py cross --grid 6 8
    python tools/visualize_scan.py local --grid 6 8 --options directions=[w2,w3_flip] --out windows.png
    python tools/visualize_scan.py tri_oriented --grid 3 4 4 --animate walk.gif
    python tools/visualize_scan.py raster zigzag --grid 5 5 --options zigzag.schemes=[0,3]

Several orders are put side by side. Options are those of the order's class (--list shows them); with several orders
they are written ORDER.OPTION=VALUE. VALUE is a number, true, false, none, text, or a list [a,b].
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("orders", nargs="*", metavar="ORDER", help="name of a scan order")
    parser.add_argument("--grid", type=_size, nargs="+", default=[8, 8], metavar="N",
                        help="length of each axis, one to three, slowest first (default 8 8)")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="PNG", help="picture to write (default ORDER.png)")
    parser.add_argument("--animate", type=Path, metavar="GIF", help="write a walk along the path")
    parser.add_argument("--options", type=_option, nargs="+", default=[], metavar="K=V", help="options of the order")
    parser.add_argument("--list", action="store_true", help="name all orders with their options")
    args = parser.parse_args(argv)
    if not args.list and not args.orders:
        parser.error("name a scan order, or ask for the --list")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.list:
        print_list()
        return 0
    try:
        draw(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def build(args: argparse.Namespace):
    """The scan order that the arguments name.

    Raises:
        ValueError: unknown order or option, or a bad value.
    """
    from mamba_vision.registry import SCAN_ORDERS

    specs = [dict(type=name) for name in args.orders]
    for key, value in args.options:
        name, _, option = key.rpartition(".")
        chosen = [spec for spec in specs if spec["type"] == name] if name else specs
        if not chosen or (not name and len(specs) > 1):
            raise ValueError(f"option {key}: say which of the orders {', '.join(args.orders)} as ORDER.{option or key}")
        for spec in chosen:
            spec[option] = value
    return SCAN_ORDERS.build(specs if len(specs) > 1 else specs[0])


def draw(args: argparse.Namespace) -> None:
    """Write what the arguments ask for.

    Raises:
        ValueError: as `build`, or a grid that does not suit.
    """
    from mamba_vision.visualization.scan_paths import scan_lines, scan_paths_animation, scan_paths_figure

    order, grid = build(args), tuple(args.grid)
    lines, name = scan_lines(order, grid), " + ".join(args.orders)
    told = "".join(f", {key}={value}" for key, value in args.options)
    title = f"{name}, grid {' × '.join(map(str, grid))}{told}"
    shared = dict(labels=order.labels, extra_tokens=order.extra_tokens(grid), title=title)
    if args.out or not args.animate:
        out = args.out or Path(f"{'_'.join(args.orders)}.png")
        scan_paths_figure(lines, grid, path=out, **shared)
        print(f"wrote {out}")
    if args.animate:
        scan_paths_animation(lines, grid, args.animate, **shared)
        print(f"wrote {args.animate}")


def print_list() -> None:
    """Every order's name, grids and options with their defaults."""
    from dataclasses import fields

    from mamba_vision.registry import SCAN_ORDERS

    SCAN_ORDERS.import_from_location()
    for name, order in sorted(SCAN_ORDERS.module_dict.items()):
        # Orders made of others run over the grids of these.
        fixed = isinstance(order.grid_ranks, tuple)
        ranks = ", ".join(f"{rank}-D" for rank in order.grid_ranks) if fixed else "as its orders"
        options = ", ".join(f"{option.name}={option.default!r}" for option in fields(order))
        print(f"{name:14} {ranks:14} {(order.__doc__ or '').splitlines()[0]}")
        if options:
            print(f"{'':14} {'':14} {options}")


def _size(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a length of at least 1")
    return value


def _option(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=VALUE")
    return key, _value(value)


def _value(text: str) -> object:
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        return [_value(part) for part in text[1:-1].split(",") if part.strip()]
    constants = {"true": True, "false": False, "none": None}
    if text.lower() in constants:
        return constants[text.lower()]
    try:
        return int(text)
    except ValueError:
        return text


if __name__ == "__main__":
    sys.exit(run_tool(main))
