"""The whole path on real MRI: make the demo data set, plan, train, evaluate, segment a scan, show the pictures.

    python tools/demo.py --work-dir work_dirs/demo

Each step is the command that a user types for data of their own; it is printed before it runs.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool

TOOLS = Path(__file__).resolve().parent


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/demo"), help="where everything is written")
    parser.add_argument("--data", type=Path, default=Path("data/demo"), help="where the demo data set is made")
    parser.add_argument("--model", default="umamba_bot", help="network, as in plan.py --model")
    return parser.parse_args()


def run(title: str, tool: str, *args: str | Path) -> None:
    """Print the command and run it; stop the demo with its exit status when it fails."""
    command = [f"tools/{tool}", *map(str, args)]
    print(f"\n\033[1m{title}\033[0m\n$ python {shlex.join(command)}", flush=True)
    status = subprocess.run([sys.executable, str(TOOLS / tool), *map(str, args)], check=False).returncode
    if status:
        sys.exit(status)


def best_checkpoint(work_dir: Path) -> Path:
    """The checkpoint with the best validation Dice, else the last one."""
    found = sorted(work_dir.glob("best_*.pth"), key=lambda file: file.stat().st_mtime)
    if found:
        return found[-1]
    return work_dir / Path((work_dir / "last_checkpoint").read_text().strip()).name


def main() -> None:
    args = parse_args()
    start = time.monotonic()
    work_dir = args.work_dir
    if (args.data / "dataset.json").exists():
        print(f"1/5 The data set is in {args.data} already")
    else:
        run("1/5 Make the data set: the two hemispheres of the MNI152 T1 template", "make_demo_data.py", args.data)
    run("2/5 Check the scans, plan the network", "plan.py", args.data, "--work-dir", work_dir, "--model", args.model,
        "--preset", "fast")  # fmt: skip
    run("3/5 Train", "train.py", work_dir / "config.py", "--resume")
    run("4/5 Evaluate on the unseen hemisphere", "test.py", work_dir / "config.py", best_checkpoint(work_dir))
    run("5/5 Segment the unseen hemisphere", "segment.py", work_dir, args.data / "imagesTs", "--out",
        work_dir / "predictions")  # fmt: skip

    summary = json.loads((work_dir / "report" / "summary.json").read_text())
    print(f"\n\033[1mDone in {(time.monotonic() - start) / 60:.1f} minutes.\033[0m  Dice on the unseen hemisphere:")
    for name, values in summary["classes"].items():
        print(f"  {name:<14} {values['dice']['mean']:.3f}")
    print(f"  {'mean':<14} {summary['mean']['dice']:.3f}")
    print("Look at:")
    for file in (work_dir / "progress.png", work_dir / "report", work_dir / "predictions"):
        print(f"  {file}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
