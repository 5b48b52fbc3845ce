"""Train what a configuration describes: a volume plan of tools/plan.py, or any MMEngine configuration.

    python tools/train.py work_dirs/liver/config.py --amp
    python tools/train.py work_dirs/liver/config.py --amp --resume
    bash tools/dist_train.sh work_dirs/liver/config.py 4 --amp

Ctrl-C saves and stops. Checkpoints, logs, progress.png and val/*.png go to the work folder.
"""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="configuration file")
    parser.add_argument("--work-dir", type=Path, help="where everything is written (default: the configuration's own, "
                        "for a planned one its folder, else work_dirs/<name of the configuration>)")  # fmt: skip
    parser.add_argument("--resume", nargs="?", const="auto", metavar="CHECKPOINT",
                        help="go on from the last checkpoint in the work folder, or from CHECKPOINT")  # fmt: skip
    parser.add_argument("--fold", help="fold of splits.json that validates, or 'all'; written to <work-dir>/fold_<N>")
    parser.add_argument(
        "--extend",
        action="store_true",
        help="resume with another number of epochs than before; the learning rate follows the new one",
    )
    parser.add_argument("--max-hours", type=float, metavar="H",
                        help="after so long save and stop (exit status 124); --resume goes on")  # fmt: skip
    parser.add_argument("--auto-batch", action="store_true",
                        help="where memory runs out, try again with half the batch")  # fmt: skip
    parser.add_argument("--amp", action="store_true", help="mixed precision: bfloat16, or float16 on older GPUs")
    parser.add_argument("--cuda-graph", action="store_true",
                        help="replay the network as CUDA graphs: faster where the GPU waits for the host")  # fmt: skip
    parser.add_argument("--no-validate", action="store_true", help="do not validate while training")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate with the total batch")
    parser.add_argument("--no-pin-memory", action="store_true", help="do not pin memory in dataloaders")
    parser.add_argument("--no-persistent-workers", action="store_true", help="start loading processes every epoch")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE",
                        help="change the configuration, e.g. epochs=50 optim_wrapper.optimizer.lr=0.001")  # fmt: skip
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm", "mpi"), default="none",
                        help="what started this process as one of several")  # fmt: skip
    # torch.distributed.launch passes the first spelling, torchrun sets the environment.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.config.is_file():
        parser.error(f"{args.config}: no such configuration")
    if args.max_hours is not None and args.max_hours <= 0:
        parser.error(f"--max-hours must be above 0, got {args.max_hours}")
    for option in args.cfg_options:
        if "=" not in option:
            parser.error(f"--cfg-options: expected KEY=VALUE, found {option!r}")
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main() -> int:
    args = parse_args()
    # Threads that wait in sleep, not in a loop: on cores that others use too, the loop makes training ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mamba_vision.apis.config_loading import parse_options
        from mamba_vision.apis.memory_advice import OutOfMemoryError
        from mamba_vision.apis.training import train
        from mamba_vision.apis.training_folder import closing_lines
        from mamba_vision.apis.training_options import TrainOptions
        from mamba_vision.engine import TrainingDivergedError, TrainingInterrupted
    options = TrainOptions(
        work_dir=args.work_dir,
        resume=args.resume,
        amp=args.amp,
        validate=not args.no_validate,
        auto_scale_lr=args.auto_scale_lr,
        pin_memory=not args.no_pin_memory,
        persistent_workers=not args.no_persistent_workers,
        fold=args.fold,
        extend=args.extend,
        max_hours=args.max_hours,
        auto_batch=args.auto_batch,
        cuda_graph=args.cuda_graph,
        launcher=args.launcher,
        cfg_options=parse_options(args.cfg_options),
    )
    try:
        runner = train(args.config, options)
    except TrainingInterrupted as stop:
        print(stop, file=sys.stderr)
        return stop.status
    except (TrainingDivergedError, OutOfMemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped without saving", file=sys.stderr)
        return 128 + signal.SIGINT
    if runner.rank == 0:
        print(closing_lines(runner, args.config, args.fold, args.work_dir is not None, bool(args.cfg_options)))
    return 0


def leave(status: int) -> None:
    """Exit. One of several processes leaves at once: threads of the process group now and then abort a slow exit."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    leave(run_tool(main))
