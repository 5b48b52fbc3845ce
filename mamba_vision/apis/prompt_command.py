"""What tools/segment.py does for promptable models: from the command line's arguments to masks."""

import argparse
import sys

from mamba_vision.apis.prompt_model import init_prompt_model
from mamba_vision.apis.prompt_run import PromptOptions, collect_prompts, segment_pictures
from mamba_vision.utils.atomic import make_folder


def run_prompts(args: argparse.Namespace) -> int:
    """Segment the pictures of `args` (see tools/segment.py) and say what was written; the exit status."""
    try:
        pictures = collect_prompts(args.scans, args.box, args.points, args.prompts, args.recursive)
        model = init_prompt_model(args.model, args.checkpoint, args.device)
        make_folder(args.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options = PromptOptions(args.preview, args.statistics, args.probabilities, args.resume, args.amp)
    device = next(model.parameters()).device
    print(f"{len(pictures)} picture{'s'[: len(pictures) > 1]}; {model.checkpoint} on {device}", flush=True)
    try:
        failed = segment_pictures(model, pictures, args.out, options)
    except BlockingIOError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command with --resume goes on", file=sys.stderr)
        return 130
    written = ["masks/"] + [name for name in ("overlays/", "probabilities/", "statistics.csv", "statistics.json")
                            if (args.out / name).exists()]  # fmt: skip
    print(f"{len(pictures) - len(failed)} of {len(pictures)} segmented; in {args.out}: {', '.join(written)}")
    return 1 if failed else 0
