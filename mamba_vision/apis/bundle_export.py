"""A trained model as a MONAI bundle: a folder that `python -m monai.bundle run` segments scans with."""

import json
import platform
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from mamba_vision.apis.volume_cascade import low_resolution
from mamba_vision.apis.volume_ensemble import VolumeEnsemble, init_volume_ensemble
from mamba_vision.apis.volume_inference import InferenceOptions, choose_steps, mirror_axes
from mamba_vision.utils.atomic import atomic_path, write_json, write_text
from mamba_vision.version import __version__
from mamba_vision.volumes.components import steps_as_json
from mamba_vision.volumes.plan import Plan

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_PARTS = "mamba_vision.apis.bundle"
_LOGGING = """\
[loggers]
keys=root

[handlers]
keys=console

[formatters]
keys=plain

[logger_root]
level=INFO
handlers=console

[handler_console]
class=StreamHandler
level=INFO
formatter=plain
args=(sys.stdout,)

[formatter_plain]
format=%(asctime)s - %(name)s - %(levelname)s - %(message)s
"""


def export_bundle(
    work_dir: str | Path,
    out: str | Path,
    *,
    folds: Sequence[str | int] = (),
    checkpoint: str | Path | None = None,
    tta: str = "flips",
    name: str | None = None,
    version: str = "0.1.0",
    authors: str = "not stated",
    license_file: str | Path | None = None,
) -> Path:
    """Write configs/inference.json, configs/metadata.json, models/model.pt and docs/README.md into the folder `out`.

    Of a cascade the bundle holds both networks.

    Args:
        work_dir: of the trained model.
        out: folder of the bundle; made if missing, its files replaced.
        folds: export their average; by default as `init_volume_ensemble` chooses.
        checkpoint: of a single model.
        tta: 'flips' or 'none', as tools/segment.py has it.
        name: of the bundle; by default that of the data set.
        version: of the bundle, not of this package.
        authors: for the metadata.
        license_file: copied as LICENSE.

    Raises:
        FileNotFoundError, ValueError: whatever init_volume_ensemble raises; a cascade without its 3d_lowres.
    """
    out = Path(out)
    ensemble = init_volume_ensemble(work_dir, folds, checkpoint, "cpu")
    (plan,) = ensemble.plans
    low = low_resolution(ensemble.first) if plan.cascaded else None
    name = name or plan.dataset
    weights = _weights(ensemble) | (_weights(low, "low.") if low else {})
    with atomic_path(out / "models" / "model.pt") as temporary:
        torch.save(weights, temporary)
    write_json(out / "configs" / "inference.json", _inference(ensemble, plan, tta, low))
    write_json(out / "configs" / "metadata.json", _metadata(plan, name, version, authors))
    write_text(out / "configs" / "logging.conf", _LOGGING)
    write_text(out / "docs" / "README.md", _readme(plan, name, ensemble, tta) + _measured(ensemble))
    if license_file is not None:
        shutil.copyfile(license_file, out / "LICENSE")
    return out


def _weights(ensemble: VolumeEnsemble, prefix: str = "") -> dict[str, torch.Tensor]:
    return {
        f"{prefix}models.{number}.{key}": value
        for number, model in enumerate(ensemble.models)
        for key, value in model.network.state_dict().items()
    }


def _network(ensemble: VolumeEnsemble) -> dict[str, Any]:
    """BundleNetwork's definition."""
    model = ensemble.first
    network = model.cfg.model.network
    return {
        "_target_": f"{_PARTS}.BundleNetwork", "models": len(ensemble.models),
        "network": network.to_dict() if hasattr(network, "to_dict") else dict(network),
        "slicewise": bool(getattr(model, "slicewise", False)),
    }  # fmt: skip


def _inferer(ensemble: VolumeEnsemble, tta: str) -> dict[str, Any]:
    """WindowInferer's definition."""
    plan, axes = ensemble.plans[0], mirror_axes(ensemble.first) if tta == "flips" else ()
    return {
        "_target_": f"{_PARTS}.WindowInferer", "roi_size": list(plan.patch_size), "outputs": plan.num_outputs,
        "sw_batch_size": plan.batch_size, "overlap": 0.5, "mirror_axes": list(axes),
    }  # fmt: skip


def _plan(plan: Plan) -> dict[str, Any]:
    """The plan as far as scans depend on it."""
    return {**plan.to_dict(), "network": {}, "reasons": {}}


def _inference(ensemble: VolumeEnsemble, plan: Plan, tta: str, low: VolumeEnsemble | None) -> dict[str, Any]:
    content = _one_network(ensemble, plan, tta)
    if low is not None:
        content["network_def"]["low"] = _network(low)
        content["low_plan"] = _plan(low.plans[0])
        content["previous"] = {
            "_target_": f"{_PARTS}.AddPreviousd", "keys": "image", "network": "$@network.low",
            "inferer": _inferer(low, tta), "low_plan": "@low_plan", "plan": "@plan",
        }  # fmt: skip
        content["evaluator"]["previous"] = "@previous"
    return content


def _one_network(ensemble: VolumeEnsemble, plan: Plan, tta: str) -> dict[str, Any]:
    steps = steps_as_json(choose_steps(ensemble, InferenceOptions(tta=tta)))
    return {
        "imports": ["$import os", "$import torch", f"$import {_PARTS} as parts"],
        "bundle_root": ".",
        "dataset_dir": "$os.path.join(@bundle_root, 'input')",
        "output_dir": "$os.path.join(@bundle_root, 'eval')",
        "checkpoint": "$os.path.join(@bundle_root, 'models', 'model.pt')",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "plan": _plan(plan),
        "network_def": _network(ensemble),
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": f"{_PARTS}.PrepareScand", "keys": "image", "plan": "@plan"}],
        },
        "dataset": {
            "_target_": "Dataset", "data": "$parts.bundle_cases(@dataset_dir)", "transform": "@preprocessing",
        },
        "inferer": _inferer(ensemble, tta),
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": f"{_PARTS}.RestoreLabelsd", "keys": "pred", "plan": "@plan", "steps": steps},
                {"_target_": f"{_PARTS}.SaveLabelsd", "keys": "pred", "output_dir": "@output_dir",
                 "labels": dict(plan.labels)},
            ],
        },
        "evaluator": {
            "_target_": f"{_PARTS}.BundleEvaluator", "dataset": "@dataset", "network": "@network",
            "inferer": "@inferer", "postprocessing": "@postprocessing",
        },
        "initialize": ["$parts.load_weights(@network, @checkpoint)"],
        "run": ["$@evaluator.run()"],
    }  # fmt: skip


def _metadata(plan: Plan, name: str, version: str, authors: str) -> dict[str, Any]:
    outputs = list(plan.regions) or list(plan.labels)
    inputs = [*plan.channels, *(f"{label}, found before" for label in list(plan.labels)[1:] if plan.cascaded)]
    ct = all(scheme == "ct" for scheme in plan.normalization)
    patch = list(plan.patch_size)
    return {
        "schema": SCHEMA,
        "version": version,
        "changelog": {version: "exported from a trained model"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {
            "mamba_vision": __version__, "nibabel": _version("nibabel"), "scipy": _version("scipy"),
        },
        "supported_apps": {},
        "name": name,
        "task": f"Segmentation of {', '.join(outputs if plan.regions else outputs[1:])}",
        "description": f"A Mamba network that segments {'CT' if ct else 'medical'} scans ({', '.join(plan.channels)}).",
        "authors": authors,
        "copyright": "as the authors state",
        "data_type": "nifti, dicom",
        "intended_use": "Research; not for clinical decisions.",
        "image_classes": "; ".join(f"{n}: {channel}" for n, channel in enumerate(plan.channels)),
        "label_classes": "; ".join(f"{value}: {label}" for label, value in plan.labels.items()),
        "pred_classes": "; ".join(f"{number}: {output}" for number, output in enumerate(outputs)),
        "python_version": platform.python_version(),
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image", "format": "hounsfield" if ct else "magnitude", "modality": "CT" if ct else "n/a",
                    "num_channels": len(inputs), "spatial_shape": patch, "dtype": "float32", "value_range": [],
                    "is_patch_data": True, "channel_def": {str(n): one for n, one in enumerate(inputs)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image", "format": "segmentation", "num_channels": len(outputs), "spatial_shape": patch,
                    "dtype": "float32", "value_range": [], "is_patch_data": True,
                    "channel_def": {str(n): one for n, one in enumerate(outputs)},
                }
            },
        },
    }  # fmt: skip


def _readme(plan: Plan, name: str, ensemble: VolumeEnsemble, tta: str) -> str:
    rows = "\n".join(f"| {value} | {label} |" for label, value in plan.labels.items())
    spacing = " x ".join(f"{side:.3g}" for side in plan.spacing)
    patch = " x ".join(map(str, plan.patch_size))
    return f"""# {name}

Segments scans with the channels {", ".join(plan.channels)}. Needs `pip install "mamba_vision[medical]"`.

    python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\
        --dataset_dir SCANS --output_dir MASKS

`SCANS` is a NIfTI file, a DICOM folder, or a folder of these; channels of a case end in `_0000`, `_0001` ... For each
case `MASKS/CASE.nii.gz` is written in the scan's own grid, voxel by voxel as `tools/segment.py` of mamba_vision does.

| value | label |
|---|---|
{rows}

{_networks(ensemble)}, patches of {patch} voxels, {spacing} mm along the
network's axes; predictions {"averaged over mirrored copies" if tta == "flips" else "of one direction"}.

Research only; not for clinical decisions.
"""


def _measured(ensemble: VolumeEnsemble) -> str:
    """What tools/test.py found, if it tested this very checkpoint."""
    file = Path(ensemble.first.checkpoint)
    try:
        found = json.loads((file.parent / "report" / "summary.json").read_text(encoding="utf-8"))
        same = len(ensemble.models) == 1 and Path(found["checkpoint"]).resolve() == file.resolve()
        rows = [
            f"| {name} | {scores['dice']['n']} | {scores['dice']['mean']:.3f} | {scores['hd95_mm']['mean']:.3g} |"
            for name, scores in found["classes"].items()
            if scores["dice"]["mean"] is not None and scores["hd95_mm"]["mean"] is not None
        ]
        about = f"On {found['tested_on']}, with --tta {found['tta']}:"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if not (same and rows):
        return ""
    head = "| label | scans | Dice | HD95 (mm) |\n|---|--:|--:|--:|"
    return "\n".join(["\n## Measured", "", about, "", head, *rows, ""])


def _networks(ensemble: VolumeEnsemble) -> str:
    count = f"{len(ensemble.models)} network{'s'[: len(ensemble.models) > 1]}"
    return f"{count} behind those of the low resolution" if ensemble.plans[0].cascaded else count


def _version(package: str) -> str:
    return metadata.version(package).split("+")[0]
