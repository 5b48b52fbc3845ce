"""python -m mamba_vision.deploy classify|segment|restore|fuse|prompt MODEL.onnx INPUT -o OUT"""

import sys

from mamba_vision.utils.tool_exit import run_tool


def main() -> int:
    """The command line; imported here, so that Ctrl-C during imports is Ctrl-C too."""
    from mamba_vision.deploy.command import main as command

    return command()


if __name__ == "__main__":
    sys.exit(run_tool(main))
