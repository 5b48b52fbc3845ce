"""Several trained models that segment together, as nnU-Net joins them.

Folds of one configuration see the same prepared scan: their logits are averaged. Configurations prepare a scan each in
its own way: their probabilities are averaged in the scan's own grid.

Layouts: windows (B, C, *S), logits (B, K, *S).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.volume_model import choose_device, find_checkpoint, init_volume_model
from mamba_vision.utils.wording import command
from mamba_vision.volumes.components import POSTPROCESSING_FILE, KeepLargest, load_steps
from mamba_vision.volumes.planning import Plan


@dataclass(frozen=True)
class VolumeEnsemble:
    """One or more configurations, each of one or more models (folds) with the same plan.

    Attributes:
        configurations: the models.
        folder: work folder of the first configuration, where its postprocessing.json may lie; None if there is none.

    Raises:
        ValueError: there is no model, models of one configuration have different plans, or configurations different
            labels or channels.
    """

    configurations: tuple[tuple[nn.Module, ...], ...]
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not self.configurations or not all(self.configurations):
            raise ValueError("configurations: expected at least one with at least one model")
        first = self.plans[0]
        for models, plan in zip(self.configurations, self.plans):
            for model in models[1:]:
                different = _differences(plan, Plan.from_dict(model.plan))
                if different:
                    raise ValueError(
                        f"{model.checkpoint}: another {', '.join(different)} than {models[0].checkpoint}; expected "
                        "folds of one plan (configurations of several plans: --ensemble)"
                    )
            for name in ("labels", "channels"):
                if getattr(plan, name) != getattr(first, name):
                    raise ValueError(
                        f"{models[0].checkpoint}: {name} {getattr(plan, name)}; expected those of "
                        f"{self.first.checkpoint}: {getattr(first, name)}"
                    )

    @property
    def first(self) -> nn.Module:
        """The first model of the first configuration."""
        return self.configurations[0][0]

    @property
    def models(self) -> list[nn.Module]:
        """All models."""
        return [model for models in self.configurations for model in models]

    @property
    def plans(self) -> list[Plan]:
        """One a configuration."""
        return [Plan.from_dict(models[0].plan) for models in self.configurations]

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return next(self.first.parameters()).device

    @property
    def labels(self) -> dict[str, int]:
        """Names and values, background first."""
        return dict(self.first.plan["labels"])

    @property
    def postprocessing(self) -> Path | None:
        """The clean-up that validation chose for this model; None where there is none, or several configurations."""
        if self.folder is None or len(self.configurations) > 1:
            return None
        found = self.folder / POSTPROCESSING_FILE
        return found if found.is_file() else None

    @property
    def usual_steps(self) -> tuple[KeepLargest, ...]:
        """What that clean-up does; an exported model has it inside."""
        if len(self.models) == 1 and hasattr(self.first, "built_in_steps"):
            return self.first.built_in_steps
        return load_steps(self.postprocessing, self.labels) if self.postprocessing is not None else ()

    def describe(self) -> str:
        """Its checkpoints in few words."""
        if len(self.models) == 1:
            return str(self.first.checkpoint)
        parts = [f"{len(models)} model{'s'[: len(models) > 1]} of {_folder(models)}" for models in self.configurations]
        return " + ".join(parts)


@dataclass(frozen=True)
class EnsembleSource:
    """Where an ensemble comes from: small, so that a process can be told to build it.

    Attributes:
        work_dirs: work folders or configurations, one a configuration of the ensemble.
        folds: of each; empty takes the work folder's own checkpoint.
        checkpoint: in place of the work folder's best; for a single model only.
    """

    work_dirs: tuple[str | Path, ...]
    folds: tuple[str, ...] = ()
    checkpoint: str | Path | None = None

    def build(self, device: str | torch.device | None = None) -> VolumeEnsemble:
        """Load everything; raises as init_volume_ensemble."""
        return init_volume_ensemble(self.work_dirs, self.folds, self.checkpoint, device)


def init_volume_ensemble(
    work_dirs: str | Path | Config | Sequence[str | Path | Config],
    folds: Sequence[str | int] = (),
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
) -> VolumeEnsemble:
    """Load the models of one or several work folders.

    Args:
        work_dirs: as `init_volume_model` takes them.
        folds: those that tools/train.py --fold trained; their best checkpoints are taken from WORK_DIR/fold_N.
            Without folds a work folder's own checkpoint is taken or, where there is none, all folds that it holds.
        checkpoint: weights in place of the best ones, where there is one model.
        device: as for `init_volume_model`.

    Raises:
        FileNotFoundError: a fold without a checkpoint, and whatever init_volume_model raises.
        ValueError: a checkpoint for several models, or models that do not go together.
    """
    sources = [work_dirs] if isinstance(work_dirs, (str, Path, Config)) else list(work_dirs)
    if checkpoint is not None and (len(sources) > 1 or len(folds) > 0):
        raise ValueError("checkpoint: expected one work folder and no folds; theirs are found by themselves")
    device = choose_device(device)
    configurations = []
    for source in sources:
        places = [source] if checkpoint is not None else model_folders(source, folds)
        configurations.append(tuple(init_volume_model(place, checkpoint, device) for place in places))
    first = sources[0]
    folder = Path(first) if not isinstance(first, Config) else None
    return VolumeEnsemble(tuple(configurations), folder.parent if folder is not None and folder.is_file() else folder)


def as_ensemble(model: nn.Module | VolumeEnsemble | Sequence[nn.Module]) -> VolumeEnsemble:
    """A model, or folds in a list, as an ensemble."""
    if isinstance(model, VolumeEnsemble):
        return model
    models = tuple(model) if isinstance(model, (list, tuple)) else (model,)
    file = models[0].checkpoint
    return VolumeEnsemble((models,), Path(file).parent if len(models) == 1 else None)


def model_folders(source: str | Path | Config, folds: Sequence[str | int] = ()) -> list[Any]:
    """The folders with a checkpoint each: of the folds, or of the work folder itself.

    Raises:
        FileNotFoundError: a fold that was not trained.
    """
    if isinstance(source, Config) or not Path(source).is_dir():
        if folds:
            raise FileNotFoundError(f"{source}: expected the work folder that holds fold_{folds[0]}")
        return [source]
    folder = Path(source)
    if not folds:
        trained = [inner for inner in sorted(folder.glob("fold_*")) if _has_checkpoint(inner)]
        numbered = [inner for inner in trained if inner.name != "fold_all"]
        return [folder] if _has_checkpoint(folder) or not numbered else numbered
    return [fold_folder(folder, str(fold)) for fold in folds]


def fold_folder(folder: Path, fold: str) -> Path:
    """Where the checkpoint of a fold lies: WORK_DIR/fold_N, or the work folder trained without --fold.

    Raises:
        FileNotFoundError: it was not trained.
    """
    inner = folder / f"fold_{fold}"
    if _has_checkpoint(inner):
        return inner
    if _has_checkpoint(folder) and str(load_config(folder / "config.py").get("fold", "")) == fold:
        return folder  # trained without --fold: the one that config.py names
    first = command("tools/train.py", folder / "config.py", "--fold", fold)
    raise FileNotFoundError(f"{inner}: no checkpoint; train it first: {first}")


def _has_checkpoint(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        find_checkpoint(folder)
    except FileNotFoundError:
        return False
    return True


def ensemble_predictor(models: Sequence[nn.Module], axes: Sequence[Sequence[int]], half: torch.dtype | None = None):
    """Windows (B, C, *S) to the mean of the models' logits, each averaged over mirrored copies along its `axes`.

    `half` computes in this type.
    """

    def predict(windows: torch.Tensor) -> torch.Tensor:
        total = None
        with _autocast(windows.device, half):
            for model, mirrored in zip(models, axes):
                logits = model.predict_logits(windows, inferer=lambda whole, net: net(whole), mirror_axes=mirrored)
                total = logits.float() if total is None else total.add_(logits.float())
        return total / len(models) if len(models) > 1 else total

    return predict


def _autocast(device: torch.device, half: torch.dtype | None) -> AbstractContextManager:
    return nullcontext() if half is None else torch.autocast(device.type, dtype=half)


def _differences(one: Plan, other: Plan) -> list[str]:
    """What of two plans differs that a prepared scan or the windows depend on."""
    left, right = one.to_dict(), other.to_dict()
    meaningless = ("reasons", "dataset", "network", "median_shape", "batch_size")
    return [name for name in left if name not in meaningless and left[name] != right.get(name)]


def _folder(models: Sequence[nn.Module]) -> Path:
    places = {Path(model.checkpoint).parent for model in models}
    return places.pop() if len(places) == 1 else places.pop().parent
