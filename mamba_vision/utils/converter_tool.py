"""What the tools in tools/dataset_converters share: their arguments, their errors, and what they say at the end."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from mamba_vision.utils.wording import command


def converter_parser(description: str, source: str) -> argparse.ArgumentParser:
    """A parser with the arguments SOURCE, OUT and --copy.

    Args:
        description: the tool's docstring.
        source: what SOURCE is.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help=source)
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="new folder for the data set, e.g. data/Dataset009_Spleen"
    )
    parser.add_argument("--copy", action="store_true", help="copy the files (default: link to them)")
    return parser


def run_converter(convert: Callable[[argparse.Namespace], str], args: argparse.Namespace) -> int:
    """Convert, say what was made and what to type next; the exit status.

    Args:
        convert: writes the data set and returns what it did, in words.
    """
    try:
        said = convert(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {said}\nNext: {command('tools/plan.py', args.out)}")
    return 0
