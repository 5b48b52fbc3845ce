"""Write docs/reference/models.md: parameters and FLOPs of all variants, counted, beside the published figures.

python tools/analysis_tools/model_table.py
python tools/analysis_tools/model_table.py --check
python tools/analysis_tools/model_table.py --only 'vim_*' --out -
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "models.md"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=str(PAGE), metavar="FILE", help="page to write, - for the screen")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="names to count (with --out)")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if the page is out of date")
    args = parser.parse_args(argv)
    if args.only != "*" and args.out == str(PAGE):
        parser.error("--only: the page has all variants; give another --out")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mamba_vision.apis.model_table import table_page
    from mamba_vision.utils.atomic import write_text

    page = table_page(args.only)
    if args.check:
        current = Path(args.out).is_file() and Path(args.out).read_text(encoding="utf-8") == page
        print(f"{args.out} is {'up to date' if current else 'out of date: run this tool without --check'}")
        return 0 if current else 1
    if args.out == "-":
        sys.stdout.write(page)
    else:
        print(f"wrote {write_text(args.out, page)}")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
