"""Many scans through one model, in MMEngine's form of an inferencer.

inferencer = VolumeInferencer("work_dirs/liver")
results = inferencer(["a.nii.gz", "b.nii.gz"])["predictions"]
inferencer("scans/", out_dir="predictions")
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer

from mamba_vision.apis.volume_ensemble import init_volume_ensemble
from mamba_vision.apis.volume_inference import inference_volume
from mamba_vision.apis.volume_inputs import Scan
from mamba_vision.apis.volume_result import VolumeResult
from mamba_vision.volumes.pictures import picture_ending
from mamba_vision.volumes.scan_collection import collect_scans


class VolumeInferencer(BaseInferencer):
    """Segments scans: paths (files, DICOM folders, folders of these), nibabel images, MetaTensors, (array, affine).

    Args:
        model: work folder or configuration; a list of them is an ensemble.
        weights: checkpoint; of a work folder by default the best, else the last.
        device: 'cpu', 'cuda' ...; a GPU by default if there is one.
        show_progress: a progress bar over the scans.
        folds: average these folds of each; see `init_volume_ensemble`.
    """

    forward_kwargs = {  # noqa: RUF012 (as MMEngine's metaclass reads it)
        "series", "tta", "overlap", "max_memory", "amp", "labels", "probabilities", "scratch", "buffer",
        "postprocessing", "keep_largest", "uncertainty",
    }  # fmt: skip
    visualize_kwargs = {"out_dir", "preview"}  # noqa: RUF012

    def __init__(
        self,
        model: str | Path | Config | Sequence[str | Path | Config],
        weights: str | Path | None = None,
        device: str | torch.device | None = None,
        show_progress: bool = True,
        folds: Sequence[str | int] = (),
    ) -> None:
        # The base class would load the weights with MMEngine's loader, which may run what is in a file.
        self.ensemble = init_volume_ensemble(model, folds, weights, device)
        self.model = self.ensemble.first
        self.cfg = self.model.cfg
        self.scope = "mamba_vision"
        self.show_progress = show_progress

    def __call__(
        self, inputs: Scan | list[Scan], return_datasamples: bool = False, batch_size: int | None = None, **kwargs: Any
    ) -> dict[str, list]:
        """Segment one scan or a list of scans (a list inside the list is the channels of one case).

        Args:
            inputs: the scans.
            return_datasamples: not used; results are always VolumeResult.
            batch_size: windows predicted together; by default as `inference_volume` has it.
            kwargs: options of `inference_volume`; `out_dir`, a folder for CASE.nii.gz and CASE_preview.png, and
                `preview=False` to leave out the latter.

        Returns:
            `predictions`, a list of VolumeResult, and `visualization`, the paths of the pictures.

        Raises:
            ValueError: an unknown option, or whatever `inference_volume` raises for a scan.
        """
        known = self.forward_kwargs | self.visualize_kwargs
        if unknown := set(kwargs) - known:
            raise ValueError(f"{', '.join(sorted(unknown))}: unknown; expected some of {', '.join(sorted(known))}")
        return super().__call__(inputs, return_datasamples, batch_size, **kwargs)

    def preprocess(
        self, inputs: list[Scan], batch_size: int | None = None, **kwargs: Any
    ) -> Iterator[tuple[Scan, int | None]]:
        """Scans are read one at a time, when their turn has come."""
        for scan in inputs:
            yield scan, batch_size

    def forward(self, inputs: tuple[Scan, int | None], **kwargs: Any) -> list[VolumeResult]:
        """Segment one scan."""
        scan, batch_size = inputs
        return [inference_volume(self.ensemble, scan, batch_size=batch_size, **kwargs)]

    def visualize(
        self, inputs: list, preds: list[VolumeResult], out_dir: str | Path | None = None, preview: bool = True
    ) -> list[Path]:
        """Write masks and pictures where a folder is given; scans of one name are numbered."""
        pictures, used = [], Counter()
        for result in preds if out_dir is not None else ():
            used[result.case] += 1
            name = result.case if used[result.case] == 1 else f"{result.case}_{used[result.case]}"
            result.save(Path(out_dir) / f"{name}{picture_ending(result.volume.name) or '.nii.gz'}")
            if preview:
                pictures.append(result.preview(Path(out_dir) / f"{name}_preview.png"))
        return pictures

    def postprocess(
        self, preds: list[VolumeResult], visualization: list[Path], return_datasample: bool = False, **kwargs: Any
    ) -> dict[str, list]:
        """MMEngine's form of results."""
        return {"predictions": preds, "visualization": visualization}

    def _init_pipeline(self, cfg: Config) -> None:
        """The base class asks for one; `inference_volume` prepares scans by the plan."""

    def _inputs_to_list(self, inputs: Scan | list[Scan]) -> list[Scan]:
        listed = inputs if isinstance(inputs, list) else [inputs]
        found = [collect_scans([one]) if isinstance(one, str | Path) else [one] for one in listed]
        return [scan for scans in found for scan in scans]
