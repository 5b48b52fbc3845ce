"""What trainings leave in a work folder: an earlier one is kept when another begins; the end tells what is there."""

from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from mamba_vision.engine import latest_checkpoint
from mamba_vision.engine.hooks.checkpoint import POINTER
from mamba_vision.utils.atomic import make_folder
from mamba_vision.utils.wording import command, count, shown

# What a second training would write over, or leave beside its own as if it were of one.
_RESULTS = (POINTER, "*.pth", "nan_batch.pt", "progress.png", "val", "training", "comparison")


def set_aside(cfg: Config) -> Path | None:
    """Move what an earlier training left in `cfg.work_dir` to a folder earlier_N there, unless this one resumes.

    The checkpoint that this one starts from (`load_from`) stays. Logs stay too: their names tell the time.

    Returns:
        The new folder; None where there was nothing to keep.
    """
    folder = Path(cfg.work_dir)
    if cfg.get("resume") or not (folder / POINTER).is_file():
        return None
    start = Path(cfg.load_from).resolve() if cfg.get("load_from") else None
    kept = [file for pattern in _RESULTS for file in sorted(folder.glob(pattern)) if file.resolve() != start]
    number = 1 + max((int(end) for one in folder.glob("earlier_*") if (end := one.name[8:]).isdigit()), default=0)
    target = make_folder(folder / f"earlier_{number}")
    for file in kept:
        file.replace(target / file.name)
    return target


def closing_lines(
    runner: Runner, config: str | Path, fold: int | str | None = None, work_dir: bool = False, options: bool = False
) -> str:
    """What training left behind, and the next command to type.

    Args:
        runner: trained.
        config: the configuration that the user named.
        fold: that the user named, if any.
        work_dir, options: whether the user named another work folder, or changed the configuration. The next command
            then names the configuration that training has left in the work folder, which knows of all this.
    """
    folder = Path(runner.work_dir)
    best = sorted(folder.glob("best_*.pth"), key=lambda file: file.stat().st_mtime)
    last = latest_checkpoint(folder)
    checkpoint = best[-1] if best else last
    metrics = {
        name.removeprefix("val/"): float(buffer.current())
        for name, buffer in runner.message_hub.log_scalars.items()
        if name.startswith("val/") and name not in ("val/time", "val/data_time")
    }
    epochs = f"{count(runner.epoch, 'epoch')}, " if runner.epoch else ""  # none where the loop counts iterations alone
    lines = ["", f"Trained {epochs}{count(runner.iter, 'iteration')}."]
    if metrics:
        lines.append("Last validation: " + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    seen = (folder / "training" / "index.html", folder / "progress.png", folder / "val")
    for file in (checkpoint, last if last != checkpoint else None, *seen):
        if file is not None and file.exists():
            lines.append(f"  {shown(file)}")
    if checkpoint is not None:
        left = folder / (Path(runner.cfg.filename).name if runner.cfg.filename else f"{runner.timestamp}.py")
        if (work_dir or options) and left.is_file():
            words = [left, checkpoint]
        else:
            words = [Path(config), checkpoint, *([] if fold is None else ["--fold", str(fold)])]
        lines.append(f"Next: {command('tools/test.py', *words)}")
    return "\n".join(lines)
