"""A local web page: load a picture, click boxes and points, see the mask.

    python tools/prompt_page.py work_dirs/promamba-tiny_1xb16-100e_polyps-352x352
    python tools/prompt_page.py configs/promamba/promamba-tiny_1xb16-100e_polyps-352x352.py best.pth --image frame.png

Two clicks make a box; points say what is meant and what is not. The page is served to this computer alone (127.0.0.1)
and fetches nothing from elsewhere. It needs Gradio: pip install "mamba_vision[web]"
"""

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="configuration with a PromptSegmentor, or its work folder")
    parser.add_argument("checkpoint", type=Path, nargs="?",
                        help="weights; default: the best in the work folder, else the last")  # fmt: skip
    parser.add_argument("--image", type=Path, help="picture to begin with")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--open", action="store_true", help="open it in a browser")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    parser.add_argument("--amp", action="store_true", help="compute in half precision")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if importlib.util.find_spec("gradio") is None:
        print('error: the page is made with gradio, which is missing: pip install "mamba_vision[web]"', file=sys.stderr)
        return 2
    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mamba_vision.apis.prompt_model import init_prompt_model
        from mamba_vision.apis.prompt_page import build_page, serve
        from mamba_vision.datasets.prompt_images import read_rgb
    try:
        model = init_prompt_model(args.config, args.checkpoint, args.device)
        if args.image is not None:
            read_rgb(args.image)
        with tempfile.TemporaryDirectory(prefix="prompt_page_") as folder:
            print(f"{model.checkpoint} on {next(model.parameters()).device}", flush=True)
            serve(build_page(model, folder, args.image, args.amp), args.port, args.open)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
