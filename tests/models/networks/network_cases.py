"""What the parity tests of networks share."""

import re
from collections.abc import Callable

import pytest
import torch
from recorded import recorded
from torch import Tensor, nn

from mamba_vision.checkpoints import published_names


def recorded_gradients(model: nn.Module, case) -> dict[str, Tensor]:
    """The gradients that a case recorded, under their published names."""
    parameters = dict(model.named_parameters())
    ours = {theirs: name for name, theirs in published_names(model).items()}
    return {name: parameters[ours[name]].grad for name in case.gradients}


def grid_of(case) -> tuple[int, int]:
    """Rows and columns of the map that a layer's tokens are, which only the notes tell: '5x7 grid', '6 x 9 grid'."""
    rows, columns = re.search(r"(\d+) ?x ?(\d+) grid", case.notes).groups()
    return int(rows), int(columns)


def marked(system: str, *classes: str, without: tuple[str, ...] = (), slow: tuple[str, ...] = ()) -> list:
    """As `recorded`, some marked as slow."""
    names = recorded(system, *classes, without=without)
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


def compare(case, run: Callable) -> None:
    """The outputs of `run(case)`, a network and what it gave, and the gradients if the case has some."""
    with torch.set_grad_enabled(bool(case.gradients)):
        model, outputs = run(case)
        if case.gradients:
            case.loss(**outputs).backward()
    case.check(recorded_gradients(model, case), **outputs)
