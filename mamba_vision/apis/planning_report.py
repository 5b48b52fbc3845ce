"""A plan, and what stands in its way, as a person reads it in a terminal."""

from collections.abc import Sequence
from math import prod

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mamba_vision.apis.planning import Planned
from mamba_vision.utils.wording import count
from mamba_vision.volumes.checks import Problem, errors
from mamba_vision.volumes.plan import Plan


def print_problems(console: Console, problems: Sequence[Problem]) -> None:
    """A line a problem: file, what was found, what was expected, what to do; those that stop the plan first."""
    if not problems:
        return
    bad = len(errors(problems))
    title = f"{count(bad, 'problem')}, {count(len(problems) - bad, 'warning')}"
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("file", overflow="fold")
    for column in ("found", "expected", "what to do"):
        table.add_column(column)
    for problem in sorted(problems, key=lambda one: one.severity != "error"):
        style = "red" if problem.severity == "error" else "yellow"
        cells = (problem.file, problem.found, problem.expected, problem.cure)
        table.add_row(*map(escape, cells), style=style)
    console.print(table)


def print_plan(console: Console, planned: Planned) -> None:
    """What was read, every choice with its reason, what was written, what comes next."""
    plan, cases = planned.plan, planned.fingerprint.cases
    print_problems(console, planned.problems)
    voxels = sum(prod(case.shape) for case in cases)
    console.print(
        f"{plan.dataset}: {count(len(cases), 'case')}, {count(len(plan.channels), 'channel')} "
        f"({', '.join(plan.channels)}), {_labels(plan)}, {voxels / 1e6:.3g} million voxels",
        markup=False,
        soft_wrap=True,
    )
    choices = {
        "spacing": (f"{_by(plan.spacing)} mm", "spacing"),
        "axes": (" ".join("xyz"[axis] for axis in plan.axes), "axes"),
        "patch": (f"{_by(plan.patch_size)} voxels", "patch_size"),
        "batch": (str(plan.batch_size), "batch_size"),
        "intensities": (", ".join(plan.normalization), "normalization"),
        "network": (_network(plan), "network"),
        "folds": (str(len(planned.splits)), ""),
    }
    table = Table(title="Plan (along the network's axes)", title_justify="left")
    for column in ("choice", "value", "why"):
        table.add_column(column)
    for choice, (value, reason) in choices.items():
        table.add_row(choice, escape(value), escape(plan.reasons.get(reason, "")))
    console.print(table)
    if planned.others:
        console.print(_other_configurations(planned))
    if planned.hours:
        by = ", by --preset" if len(planned.hours) > 1 else ""  # an imported plan has none beside it
        console.print(f"Training time{by} (measured on a few steps; waiting for data not counted):")
        for name, estimate in planned.hours.items():
            chosen = "  <- this plan" if name == planned.preset else ""
            console.print(f"  {name:8} {estimate.describe()}{chosen}", markup=False, soft_wrap=True)
    for note in planned.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
    if not planned.files:
        console.print("Dry run: nothing was written.")
        return
    console.print("Written:")
    for file in planned.files:
        console.print(f"  {file}", markup=False, soft_wrap=True)
    console.print(f"\nNext:  {planned.next_command}", markup=False, soft_wrap=True)


def _labels(plan: Plan) -> str:
    if plan.regions:
        text = f"{count(len(plan.regions), 'region')} ({', '.join(plan.regions)})"
        text += f" of {count(plan.num_classes - 1, 'label')}"
    else:
        text = f"{count(plan.num_classes - 1, 'label')} ({', '.join(list(plan.labels)[1:])})"
    return text + (" and voxels to ignore" if plan.ignore_label is not None else "")


def _network(plan: Plan) -> str:
    network = plan.network
    widths = network.get("features") or network.get("feat_size") or [network.get("init_filters")]
    return " ".join([network["type"], *([network["placement"]] if "placement" in network else [])]) + (
        f", {'-'.join(map(str, widths))}"
    )


def _other_configurations(planned: Planned) -> Table:
    table = Table(title="Also planned", title_justify="left")
    for column in ("configuration", "spacing (mm)", "patch", "batch", "network"):
        table.add_column(column)
    for name, (plan, _) in planned.others.items():
        cells = (name, _by(plan.spacing), _by(plan.patch_size), str(plan.batch_size), _network(plan))
        table.add_row(*map(escape, cells))
    return table


def _by(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
