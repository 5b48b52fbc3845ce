"""Search the scan directions of a LocalMamba network: train the supernet, write the network that it finds.

    python tools/search.py configs/localmamba/local-vim-search_digits.py
    python tools/train.py work_dirs/local-vim-search_digits/found.py

In the supernet every layer scans in all candidate directions and learns how much each counts. The weights are shown
layer by layer as it goes. The work folder gets directions.png (heat map), direction_curves.png, directions.json, and
found.py: a configuration with the strongest directions of each layer, which trains as it is.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="configuration of a supernet (model.backbone.search=True)")
    parser.add_argument("--work-dir", type=Path, help="where everything is written (default: the configuration's own, "
                        "else work_dirs/<name of the configuration>)")  # fmt: skip
    parser.add_argument("--keep", type=int, default=4, help="directions that a layer keeps (default 4, as published)")
    parser.add_argument("--recipe", type=Path, help="configuration that the found directions go into (default: the "
                        "one that CONFIG names as its `recipe`, else CONFIG itself without the search)")  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, help="do not train: read the direction weights of this supernet")
    parser.add_argument("--resume", nargs="?", const="auto", metavar="CHECKPOINT",
                        help="go on from the last checkpoint in the work folder, or from CHECKPOINT")  # fmt: skip
    parser.add_argument("--amp", action="store_true", help="mixed precision: bfloat16, or float16 on older GPUs")
    parser.add_argument("--no-validate", action="store_true", help="do not validate while training")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate with the total batch")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE",
                        help="change the configuration, e.g. train_cfg.max_epochs=50")  # fmt: skip
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm", "mpi"), default="none",
                        help="what started this process as one of several")  # fmt: skip
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for path in (args.config, args.recipe, args.checkpoint):
        if path is not None and not path.is_file():
            parser.error(f"{path}: no such file")
    for option in args.cfg_options:
        if "=" not in option:
            parser.error(f"--cfg-options: expected KEY=VALUE, found {option!r}")
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main() -> int:
    args = parse_args()
    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mmengine.dist import is_main_process
        from rich.console import Console

        from mamba_vision.apis.config_loading import parse_options
        from mamba_vision.apis.direction_search import search, search_result
        from mamba_vision.apis.training_options import TrainOptions
        from mamba_vision.engine import TrainingDivergedError, TrainingInterrupted
        from mamba_vision.engine.hooks.direction_search import CURVES, HEAT_MAP, weights_table
        from mamba_vision.utils.wording import command, shown
    options = TrainOptions(
        work_dir=args.work_dir,
        resume=args.resume,
        amp=args.amp,
        validate=not args.no_validate,
        auto_scale_lr=args.auto_scale_lr,
        launcher=args.launcher,
        cfg_options=parse_options(args.cfg_options),
    )
    try:
        if args.checkpoint is None:
            found = search(args.config, options, args.keep, args.recipe)
        else:
            found = search_result(args.config, args.checkpoint, options, args.keep, args.recipe)
    except TrainingInterrupted as stop:
        print(stop, file=sys.stderr)
        return stop.status
    except TrainingDivergedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; --resume goes on from the last checkpoint", file=sys.stderr)
        return 128 + signal.SIGINT
    if is_main_process():
        Console(highlight=False).print("", weights_table(found.history), "")
        for number, names in enumerate(found.directions):
            print(f"layer {number:2}: {' '.join(names)}")
        for name in (HEAT_MAP, CURVES):
            print(f"  {shown(found.config.parent / name)}")
        print(f"Next: {command('tools/train.py', found.config)}")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
