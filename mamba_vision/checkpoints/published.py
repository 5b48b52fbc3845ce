"""Loading published weights into a model: strictly, and with an account of every name."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mamba_vision.checkpoints.errors import CheckpointError
from mamba_vision.checkpoints.loading import load_file
from mamba_vision.checkpoints.renaming import matches
from mamba_vision.checkpoints.state_dicts import find_state_dict
from mamba_vision.checkpoints.wrapped import fitted, naming, published_part

_SHOWN = 12


@dataclass
class LoadReport:
    """What became of every name.

    Attributes:
        loaded: published name -> name in the model.
        ignored: published names that carry nothing of their own (second names of the same tensors).
        skipped: names in the model that were left as they are because the caller asked for it.
    """

    loaded: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def renamed(self) -> dict[str, str]:
        """The published names that differ from ours, with ours."""
        return {theirs: ours for theirs, ours in self.loaded.items() if theirs != ours}


def load_published(
    model: nn.Module,
    source: str | Path | Mapping[str, Any],
    *,
    prefix: str = "",
    ema: bool = False,
    skip: Sequence[str] = (),
) -> LoadReport:
    """Load weights, as their authors published them or as we saved them, into `model`. All or nothing.

    Args:
        model: Any module; it, or a child such as a classifier's backbone, may carry `published_renames`,
            `published_ignored` (see `renaming`), `published_head` and `fit_published` (see `wrapped`), and
            `explain_misfit(state) -> str | None`, a likely reason to end the error's message with.
        source: A file (or address), what a file holds, or a state dict.
        prefix: Take only the names that begin so, without it: 'backbone.' of a classifier, 'network.' of a task.
        ema: Take the moving average that is stored beside the weights.
        skip: Patterns of names in the model that keep their present values, such as a head for other classes.

    Returns:
        The account of names.

    Raises:
        CheckpointError: the file is refused or damaged, or does not fit: the message lists what is missing, what is
            left over, and the shapes that differ. The model is then unchanged.
        FileNotFoundError: there is no such file.
    """
    label = "the state dict" if isinstance(source, Mapping) else f"checkpoint {source}"
    checkpoint = source if isinstance(source, Mapping) else load_file(source)
    state = find_state_dict(checkpoint, ema=ema, source=label)
    if prefix:
        inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if not inside:
            raise CheckpointError(
                f"{label} has no name that begins with {prefix!r}; its first is {next(iter(state))!r}"
            )
        state = inside

    own = model.state_dict()
    report = LoadReport(skipped=[name for name in own if matches(name, skip)])
    values: dict[str, Tensor] = {}
    left_over: list[str] = []
    rename, ignored = naming(model, state)
    for name, value in state.items():
        ours = rename(name)
        if ours in own and not ignored(name):
            if ours in values:
                raise CheckpointError(f"{label}: {name} and another name both become {ours}")
            try:
                values[ours] = fitted(model, ours, value)
            except ValueError as error:
                raise CheckpointError(f"{label}: {error}") from error
            report.loaded[name] = ours
        elif ignored(name):
            report.ignored.append(name)
        elif not matches(ours, skip):
            left_over.append(name)
    for name in report.skipped:
        values.pop(name, None)
    report.loaded = {theirs: ours for theirs, ours in report.loaded.items() if ours in values}

    missing = [name for name in own if name not in values and name not in report.skipped]
    differing = [
        f"{name}: found {tuple(value.shape)}, expected {tuple(own[name].shape)}"
        for name, value in values.items()
        if value.shape != own[name].shape
    ]
    if missing or left_over or differing:
        message = _misfit(label, model, len(own), missing, left_over, differing)
        _, part = published_part(model)
        reason = part.explain_misfit(state) if hasattr(part, "explain_misfit") else None
        raise CheckpointError(f"{message}\n  {reason}" if reason else message)
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)  # state_dict() shares memory with the model
    return report


def _misfit(
    label: str, model: nn.Module, total: int, missing: list[str], left_over: list[str], differing: list[str]
) -> str:
    """The message for weights that do not fit, ending in the likeliest reason."""
    lines = [f"{label} does not fit {type(model).__name__}:"]
    for title, names in (("missing", missing), ("left over", left_over), ("of another shape", differing)):
        if names:
            more = f"\n    and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            lines.append(f"  {title} ({len(names)}):\n    " + "\n    ".join(names[:_SHOWN]) + more)
    if len(missing) == total:
        close = difflib.get_close_matches(missing[0], left_over, n=1, cutoff=0.6)
        inner = next((name for name in left_over if name.endswith("." + missing[0])), None)
        if inner:
            lines.append(f"  Every name is missing; with prefix={inner.removesuffix(missing[0])!r} they may be found")
        else:
            hint = f" (the nearest to {missing[0]} is {close[0]})" if close else ""
            lines.append(f"  No name agrees: this is the checkpoint of another network{hint}")
    elif differing and not missing and not left_over:
        lines.append("  Names agree, shapes do not: the same network with other settings (classes, channels, widths)")
    return "\n".join(lines)
