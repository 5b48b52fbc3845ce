"""What a cascade is trained on: the low resolution's segmentation of every training case.

Each case is segmented by the fold that did not train on it, or the second network would learn to trust what it never
gets later. Scans are segmented by all folds together (volume_cascade).
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from torch import nn

from mamba_vision.apis.volume_ensemble import model_folders
from mamba_vision.apis.volume_inference import inference_volume
from mamba_vision.apis.volume_model import checkpoint_hash, init_volume_model
from mamba_vision.utils.atomic import atomic_path, write_json
from mamba_vision.utils.wording import command
from mamba_vision.volumes.cache import CachedCase, plan_hash
from mamba_vision.volumes.parallel import for_each
from mamba_vision.volumes.plan import Plan
from mamba_vision.volumes.preprocess import prepare_labels
from mamba_vision.volumes.scans import ScanFiles
from mamba_vision.volumes.splits import load_splits

RECORD = "made_by.json"


def prepare_previous(cfg: Config, plan: Plan, cases: Sequence[CachedCase], progress: bool = True) -> None:
    """Write `cfg.previous`/CASE.npy, class numbers in the shape of the prepared case, for every case that has none yet.

    A case is segmented anew when its model, or the way scans are prepared, has changed.

    Raises:
        ValueError: folds of the low resolution that are not trained, or cases that no fold validates.
    """
    folder, splits = Path(cfg.previous), load_splits(cfg.splits)
    fold_of = {name: number for number, fold in reversed(list(enumerate(splits))) for name in fold["val"]}
    homeless = [case.case for case in cases if case.case not in fold_of]
    if homeless:
        raise ValueError(
            f"{cfg.splits}: {', '.join(homeless[:10])} are validated in no fold; a cascade needs them to be"
        )
    places = _fold_folders(Path(cfg.lowres), sorted({fold_of[case.case] for case in cases}))
    record = _read(folder / RECORD)
    for fold, place in places.items():
        mine = [case for case in cases if fold_of[case.case] == fold]
        model = init_volume_model(place)
        made_by = {"checkpoint": checkpoint_hash(model.checkpoint), "preparation": plan_hash(plan)}
        missing = [
            case for case in mine
            if record.get(case.case) != made_by or not (folder / f"{case.case}.npy").is_file()
        ]  # fmt: skip

        def find(case: CachedCase, model: nn.Module = model) -> None:
            found = inference_volume(model, ScanFiles(case.case, tuple(case.sources), series=case.record["series"]))
            classes = prepare_labels(found.mask, case.geometry, plan)
            with atomic_path(folder / f"{case.case}.npy") as temporary:
                np.save(temporary, classes.astype(np.uint8 if plan.num_classes < 256 else np.uint16))

        for_each(find, missing, title=f"Low resolution, fold {fold}", progress=progress)
        record.update({case.case: made_by for case in missing})
        write_json(folder / RECORD, record)


def _fold_folders(lowres: Path, folds: Sequence[int]) -> dict[int, Path]:
    places, missing = {}, []
    for fold in folds:
        try:
            places[fold] = model_folders(lowres, [fold])[0]
        except FileNotFoundError:
            missing.append(fold)
    if missing:
        config = Path(os.path.normpath(lowres)) / "config.py"  # not W/3d_cascade_fullres/../3d_lowres
        commands = "".join(f"\n  {command('tools/train.py', config, '--fold', str(fold))}" for fold in missing)
        raise ValueError(f"{lowres}: no trained model of fold {', '.join(map(str, missing))}. Train first:{commands}")
    return places


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
