"""What the tools that explain a classifier's answer share: their arguments."""

import argparse
from pathlib import Path


def explanation_parser(description: str, out: str) -> argparse.ArgumentParser:
    """A parser with the model, its weights, the picture, the picture to write, the class and the device.

    Args:
        description: the tool's docstring.
        out: picture that is written unless --out names another.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("model", help="configuration file, or name of a model")
    add("checkpoint", type=Path, help="weights, trained here or as published")
    add("image", type=Path, help="picture")
    add("--out", type=Path, default=Path(out), metavar="PNG", help="picture to write (default: %(default)s)")
    add("--class", dest="label", type=int, help="number of the class to explain (default: the likeliest)")
    add("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    return parser
