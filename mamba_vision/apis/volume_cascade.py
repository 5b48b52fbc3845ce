"""A cascade at work: its second network is given what the low resolution has found in a scan."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from mamba_vision.apis.volume_ensemble import VolumeEnsemble, init_volume_ensemble


def low_resolution(model: nn.Module, folds: Sequence[str | int] = ()) -> VolumeEnsemble:
    """The models whose findings `model`, the second of a cascade, has to be given; loaded once.

    Args:
        model: the second network.
        folds: of the first one, for the model from now on; by default all together. Validation asks for the one that
            did not train on the case either.

    Raises:
        FileNotFoundError: the folder 3d_lowres is neither where the configuration says nor beside the model's folder.
    """
    if folds or getattr(model, "low_resolution", None) is None:
        named = model.cfg.get("lowres")
        beside = [parent / "3d_lowres" for parent in Path(model.checkpoint).resolve().parents[1:3]]
        # What is beside comes first: a merged configuration names the place that it was planned at.
        found = next((place for place in [*beside, *([Path(named)] if named else [])] if place.is_dir()), None)
        if found is None:
            raise FileNotFoundError(
                f"{model.checkpoint}: a cascade needs the folder 3d_lowres; not found as {beside[0]}"
            )
        ensemble = init_volume_ensemble(found, folds, device=next(model.parameters()).device)
        # Not a submodule: its weights are no part of this model's.
        object.__setattr__(model, "low_resolution", ensemble)
    return model.low_resolution


def add_previous(image: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """(C, *S) with the class numbers (*S) behind it, one-hot without background."""
    one_hot = [classes == number for number in range(1, num_classes)]
    return np.concatenate([image, np.stack(one_hot).astype(np.float32)])
