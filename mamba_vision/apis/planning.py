"""From a folder of scans to a work folder that is ready to train: checked, measured, planned, prepared.

from mamba_vision.apis.planning import plan_dataset
planned = plan_dataset("data/demo", "work_dirs/demo")
print(planned.plan.patch_size, planned.next_command)
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from mamba_vision.apis.config_template import PRESETS, render_config
from mamba_vision.apis.planning_estimate import Estimate, estimate_training, memory_problem
from mamba_vision.apis.planning_pictures import write_pictures
from mamba_vision.utils.atomic import writable_folder, write_text
from mamba_vision.utils.wording import command, count
from mamba_vision.volumes.cache import build_cache
from mamba_vision.volumes.checks import Problem, errors, miscounted, orphan_labels, unread_files, write_problems
from mamba_vision.volumes.fingerprint import Fingerprint
from mamba_vision.volumes.label_scheme import LabelScheme, read_label_scheme
from mamba_vision.volumes.nnunet_plans import plans_from_nnunet, read_nnunet_plans
from mamba_vision.volumes.patients import check_patients, patients_of
from mamba_vision.volumes.plan import Plan
from mamba_vision.volumes.planning import make_plan, make_plans
from mamba_vision.volumes.scan_files import ScanFiles, channel_count, read_scan, structure_labels
from mamba_vision.volumes.scans import find_scans, image_folders, read_dataset_info
from mamba_vision.volumes.splits import listed_splits, load_splits, make_splits, save_splits
from mamba_vision.volumes.survey import survey
from mamba_vision.volumes.volume import VolumeError


class DatasetError(VolumeError):
    """A data set with problems that stop the plan; `problems` lists all of them, warnings included."""

    def __init__(self, dataset: str | Path, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        bad = errors(problems)
        lines = "".join(f"\n  {one.file}: {one.found}; expected {one.expected}" for one in bad)
        super().__init__(dataset, count(len(bad), "problem"), "scans that can be trained on")
        self.args = (f"{self.args[0]}{lines}",)

    def __reduce__(self):
        return type(self), (self.file, self.problems)


@dataclass(frozen=True)
class Planned:
    """What plan_dataset has found and written; `plan` and `config` are those of the main configuration."""

    plan: Plan
    fingerprint: Fingerprint
    scans: list[ScanFiles]
    splits: list[dict[str, list[str]]]
    problems: list[Problem]  # warnings only
    work_dir: Path
    config: str  # the text of config.py
    files: list[Path] = field(default_factory=list)  # written, empty after a dry run
    notes: list[str] = field(default_factory=list)
    others: dict[str, tuple[Plan, str]] = field(default_factory=dict)  # plan and config of further configurations
    preset: str = "default"
    hours: dict[str, Estimate] = field(default_factory=dict)  # by preset

    @property
    def next_command(self) -> str:
        """What to type next."""
        return command("tools/train.py", self.work_dir / "config.py")


def plan_dataset(
    dataset: str | Path,
    work_dir: str | Path,
    *,
    configurations: Sequence[str] | None = None,
    model: str = "umamba_bot",
    preset: str = "default",
    vram_gb: float | None = None,
    patch_size: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    batch_size: int | None = None,
    folds: int = 5,
    splits: str | Path | None = None,
    nnunet_plans: str | Path | None = None,
    by_patient: bool = False,
    channels: Sequence[str] | None = None,
    labels: Mapping[str, int] | None = None,
    series: str | None = None,
    fix_geometry: str = "error",
    workers: int | None = None,
    seed: int = 0,
    pictures: int = 50,
    dry_run: bool = False,
    estimate: bool = False,
    progress: bool = False,
    console: Console | None = None,
) -> Planned:
    """Check a data set, take its fingerprint, plan, and write the work folder.

    Args:
        dataset: any layout that volumes.scans.find_scans knows, with labels.
        work_dir: gets config.py, plan.json, fingerprint.json, splits.json, problems.csv, preprocessed/ and qc/; and for
            each further configuration a folder of its name with its config.py and plan.json.
        configurations, model, preset, vram_gb, patch_size, spacing, batch_size: see volumes.planning.make_plans.
        folds: of the cross-validation.
        splits: a file with the folds, in the form of splits.json, instead.
        nnunet_plans: nnU-Net's plans file; its spacings, patches, batches, stages and intensities are taken instead of
            being planned, and the folds of splits_final.json where that lies beside it. What cannot be taken over is
            told in the notes.
        by_patient: keep all cases of a patient in one part of each fold.
        channels, labels: names (and values), in place of dataset.json's.
        series: which series of DICOM folders that hold several: UID, number or description.
        fix_geometry: for a label or channel in another grid than its scan: 'error', 'resample' or 'copy'.
        workers: cases at once; by default a core each, as far as free memory goes.
        seed: of the training.
        pictures: the most cases to draw in qc/, outliers first.
        dry_run: write nothing.
        estimate: train a few steps to tell how long each preset would take here, and whether a GPU holds the plan.
        progress: draw bars on `console`.

    Raises:
        DatasetError: problems in the data, all of them; problems.csv is written all the same.
        VolumeError: no scans there, or an unusable dataset.json.
        OSError: a work folder that cannot be written to.
        ValueError: an option out of range, or one that contradicts `nnunet_plans`.
    """
    theirs = None
    if nnunet_plans is not None:
        asked = {"preset": preset != "default", "vram_gb": vram_gb, "spacing": spacing, "patch_size": patch_size}
        if clash := [name for name, value in asked.items() if value]:
            raise ValueError(f"{', '.join(clash)}: nnunet_plans says it already; expected one of the two")
        theirs = read_nnunet_plans(nnunet_plans)
        beside = Path(nnunet_plans).with_name("splits_final.json")
        splits = beside if splits is None and beside.is_file() else splits
    given = splits
    if given is not None:
        load_splits(given)  # before all scans are read
    dataset, work_dir = Path(dataset), Path(work_dir)
    if folds < 2:
        raise ValueError(f"folds: expected 2 or more, found {folds}")
    scans = find_scans(dataset, series=series)
    info = read_dataset_info(dataset)
    names = list(channels) if channels is not None else info.channels
    scheme = read_label_scheme(labels, "labels") if labels is not None else info.scheme
    if not scheme.labels:
        scheme = LabelScheme(structure_labels(scans))
    if progress:
        (console or Console()).print(f"{dataset}: {count(len(scans), 'case')}", markup=False, highlight=False)
    if not dry_run:
        writable_folder(work_dir)
    surveyed = survey(
        scans,
        len(names) or None,
        scheme.values or None,
        fix_geometry=fix_geometry,
        label_names=scheme.labels or None,
        workers=workers,
        progress=progress,
        console=console,
    )
    images, labelled = image_folders(dataset)
    problems = [*surveyed.problems, *orphan_labels(scans, labelled), *unread_files(scans, images)]
    problems += miscounted(dataset, info.cases, len(scans))
    if surveyed.fingerprint is not None:
        problems += _unused_labels(scheme.labels, surveyed.fingerprint, dataset)
    if errors(problems):
        if not dry_run:
            write_problems(work_dir / "problems.csv", problems)
        raise DatasetError(dataset, problems)

    fingerprint, notes = surveyed.fingerprint, []
    if not names:
        names = [f"channel_{number}" for number in range(channel_count(scans[0]))]
        notes.append("No dataset.json names the channels: z-scores are used. For CT scans add --channels CT.")
    if not scheme.labels:
        scheme = LabelScheme({"background": 0, **{f"label_{value}": value for value in fingerprint.label_values}})
        notes.append("No dataset.json names the labels: they are called label_1, ...; name them with --labels 1=liver.")
    if theirs is not None:
        plans, lost = plans_from_nnunet(
            theirs, info.name, names, scheme, read_scan(scans[0], fix_geometry).affine, model=model,
            configurations=configurations, fix_geometry=fix_geometry,
        )  # fmt: skip
        notes += lost
        if batch_size is not None:
            plans = {name: replace(plan, batch_size=batch_size) for name, plan in plans.items()}
    else:
        plans = make_plans(
            fingerprint, info.name, names, scheme, configurations=configurations, model=model, preset=preset,
            vram_gb=vram_gb, spacing=spacing,
            patch_size=patch_size, batch_size=batch_size, fix_geometry=fix_geometry,
        )  # fmt: skip
    patients = patients_of(scans)
    splits, note = _splits(given or work_dir / "splits.json", scans, folds, patients if by_patient else None, given)
    notes += [note] if note else []
    problems += check_patients(scans, splits, patients)
    main, *others = plans
    if others:
        notes.append(f"Also planned: {', '.join(others)}, each in a folder of its own; prepared when it is trained.")
    configs = {
        name: render_config(
            plan, {"scans": str(dataset.resolve()), "series": series}, work_dir if name == main else work_dir / name,
            preset=preset, seed=seed, main=main,
        )
        for name, plan in plans.items()
    }  # fmt: skip
    hours: dict[str, Estimate] = {}
    if estimate:
        for name in [preset] if theirs is not None else PRESETS:
            other = (
                plans[main]
                if name == preset
                else make_plan(
                    fingerprint, info.name, names, scheme, configuration=main, model=model, preset=name, spacing=spacing
                )
            )
            hours[name] = estimate_training(other, name)
        problems += [one] if (one := memory_problem(plans[main], hours[preset])) else []
    planned = Planned(
        plans[main], fingerprint, scans, splits, problems, work_dir, configs[main], [], notes,
        {name: (plans[name], configs[name]) for name in others}, preset, hours,
    )  # fmt: skip
    if dry_run:
        return planned
    files = _write(planned)
    prepared = build_cache(scans, planned.plan, work_dir / "preprocessed", workers, progress, console)
    files.append(work_dir / "preprocessed")
    files.append(write_pictures(work_dir / "qc", planned.plan, fingerprint, prepared, pictures, progress, console))
    return replace(planned, files=files)


def _write(planned: Planned) -> list[Path]:
    folder = planned.work_dir
    files = [*_write_config(folder, planned.plan, planned.config, planned.notes)]
    files.append(planned.fingerprint.save(folder / "fingerprint.json"))
    files.append(save_splits(folder / "splits.json", planned.splits))
    files.append(write_problems(folder / "problems.csv", planned.problems))
    for name, (plan, config) in planned.others.items():
        files += _write_config(folder / name, plan, config, planned.notes)[:1]
    return files


def _write_config(folder: Path, plan: Plan, text: str, notes: list[str]) -> list[Path]:
    config = folder / "config.py"
    if config.is_file() and config.read_text(encoding="utf-8") != text:
        names = (f"config.previous{number or ''}.py" for number in itertools.count())
        previous = next(folder / name for name in names if not (folder / name).exists())
        config.replace(previous)
        notes.append(f"{config} was there already; the old one is now {previous.name}.")
    return [write_text(config, text), plan.save(folder / "plan.json")]


def _splits(
    path: Path | str, scans: Sequence[ScanFiles], folds: int, groups: Mapping[str, str] | None, given: str | Path | None
) -> tuple[list[dict[str, list[str]]], str]:
    """The splits that are given, or there and for these cases; else new ones. And what to say about it."""
    path, cases = Path(path), [scan.case for scan in scans]
    note = ""
    if given is None and any(scan.fold for scan in scans):
        splits = listed_splits({scan.case: scan.fold for scan in scans})
        return splits, f"{count(len(splits), 'fold')} as the list of scans says."
    if path.is_file() or given is not None:
        splits = load_splits(path)
        named = {name for fold in splits for part in fold.values() for name in part}
        if given is not None and named - set(cases):
            unknown = ", ".join(sorted(named - set(cases))[:10])
            raise VolumeError(path, f"cases that are not in the data set: {unknown}", f"some of its {len(cases)} cases")
        left = len(set(cases) - named)
        left_out = f"{count(left, 'case')} in no fold" if left else "every case in a fold"
        if given is not None:
            return splits, f"{count(len(splits), 'fold')} of {path}, {left_out}."
        if named <= set(cases) and len(splits) == min(folds, len(cases)) and groups is None:
            return splits, f"splits.json was there already and is kept, {left_out}." if left else ""
        note = "splits.json was for other cases or folds and has been made anew."
    splits = make_splits(cases, folds, groups)
    if len(splits) < folds:
        note = f"{count(len(cases), 'case')} make {count(len(splits), 'fold')}, not {folds}."
    if len(cases) == 1:
        note = "A single case: it both trains and validates, so the validation says nothing about other scans."
    return splits, note


def _unused_labels(meaning: Mapping[str, int], fingerprint: Fingerprint, dataset: Path) -> list[Problem]:
    seen = set(fingerprint.label_values)
    return [
        Problem(
            "",
            str(dataset),
            f"label {name!r} = {value} occurs in no case",
            "examples of every label",
            "The network can't learn it; is it missing from the label files?",
            "warning",
        )
        for name, value in meaning.items()
        if value and value not in seen
    ]
