"""The parts that a MONAI bundle of ours is made of, for `python -m monai.bundle run`: MONAI's roles, our arithmetic.

The network is built by its name in our registry, scans are prepared and labels brought back as tools/segment.py does
it, so that a bundle gives the same voxels.

Layouts: scans (C, X, Y, Z) as stored; images (C, *S) and logits (K, *S) along the network's axes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DefaultScope
from monai.data import Dataset
from monai.inferers import Inferer
from monai.transforms import MapTransform
from torch import nn

from mamba_vision.apis.sliding_window import mirrored, sliding_window_logits
from mamba_vision.apis.volume_cascade import add_previous
from mamba_vision.apis.volume_inputs import check_channels, check_slice, to_volume
from mamba_vision.registry import MODELS
from mamba_vision.utils.quiet import quiet_imports
from mamba_vision.volumes.components import KeepLargest, apply_steps
from mamba_vision.volumes.plan import Plan
from mamba_vision.volumes.preprocess import prepare_labels, preprocess
from mamba_vision.volumes.restore import restore_labels
from mamba_vision.volumes.scan_collection import collect_scans
from mamba_vision.volumes.volume import stem
from mamba_vision.volumes.writing import write_labels


class BundleNetwork(nn.Module):
    """One network, or several of one kind (folds) whose logits are averaged.

    Args:
        network: type and arguments, as a configuration has them.
        models: how many.
        slicewise: it sees slices along the first axis of S, and windows are one slice thick.
        low: the first network of a cascade, whose findings are channels of this one; `AddPreviousd` runs it.
    """

    def __init__(
        self, network: Mapping[str, Any], models: int = 1, slicewise: bool = False, low: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.low = low
        with quiet_imports(), DefaultScope.overwrite_default_scope("mamba_vision"):
            self.models = nn.ModuleList(MODELS.build(dict(network)) for _ in range(models))
        for model in self.models:
            if getattr(model, "deep_supervision", False):
                model.deep_supervision = False
        self.slicewise = slicewise
        self.eval()

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """(B, C, *S) to logits (B, K, *S)."""
        seen = windows.squeeze(2) if self.slicewise else windows
        total = self.models[0](seen)
        for model in self.models[1:]:
            total = total + model(seen)
        mean = total / len(self.models)
        return mean.unsqueeze(2) if self.slicewise else mean


class PrepareScand(MapTransform):
    """A scan (path, DICOM folder, list of channels ...) to its image (C, *S); what leads back comes under 'scan'.

    Args:
        keys: of the scan, one.
        plan: of the model, as a dict.
    """

    def __init__(self, keys: str | Sequence[str], plan: Mapping[str, Any], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.plan = Plan.from_dict(plan)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        result = dict(data)
        for key in self.key_iterator(data):
            volume = to_volume(data[key], None, self.plan.fix_geometry)
            check_channels(volume, self.plan)
            check_slice(volume, self.plan)
            case = preprocess(volume, self.plan)
            name = getattr(data[key], "case", None) or stem(volume.paths[0]).removesuffix("_0000")
            result |= {key: torch.from_numpy(case.image), "scan": (name, volume, case.geometry)}
        return result


class WindowInferer(Inferer):
    """Overlapping windows with Gaussian weights, mirrored copies averaged; bounded memory.

    Args:
        roi_size: of a window.
        outputs: of the network, K.
        sw_batch_size: windows together.
        overlap: of neighbours.
        mirror_axes: of S; () predicts once.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        outputs: int,
        sw_batch_size: int = 1,
        overlap: float = 0.5,
        mirror_axes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.roi_size, self.outputs, self.sw_batch_size = tuple(roi_size), outputs, sw_batch_size
        self.overlap, self.mirror_axes = overlap, tuple(mirror_axes)

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(1, C, *S) to logits (1, K, *S) in main memory, or mapped from a file where that is short."""
        device = next((one.device for one in network.parameters()), inputs.device)
        logits = sliding_window_logits(
            inputs[0].cpu().numpy(), mirrored(network, self.mirror_axes), self.roi_size, self.outputs,
            overlap=self.overlap, device=device, batch_size=self.sw_batch_size,
        )  # fmt: skip
        return torch.from_numpy(logits.array)[None]


class AddPreviousd(MapTransform):
    """A cascade's image (C, *S) with what the low resolution finds in the scan, one-hot, behind it.

    Args:
        keys: of the image, one.
        network: of the low resolution.
        inferer: of the low resolution, as WindowInferer.
        low_plan, plan: of both networks, as dicts.
    """

    def __init__(
        self, keys: str | Sequence[str], network: nn.Module, inferer: Inferer, low_plan: Mapping[str, Any],
        plan: Mapping[str, Any], allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys)
        self.network, self.inferer = network, inferer
        self.low_plan, self.plan = Plan.from_dict(low_plan), Plan.from_dict(plan)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        result, (_, volume, geometry) = dict(data), data["scan"]
        case = preprocess(volume, self.low_plan)
        logits = self.inferer(torch.from_numpy(case.image)[None], self.network)[0]
        found = restore_labels(logits.numpy(), case.geometry, self.low_plan)
        classes = prepare_labels(found, geometry, self.plan)
        for key in self.key_iterator(data):
            result[key] = torch.from_numpy(add_previous(data[key].numpy(), classes, self.plan.num_classes))
        return result


class RestoreLabelsd(MapTransform):
    """Logits (K, *S) to labels (X, Y, Z) in the scan's own grid.

    Args:
        keys: of the logits.
        plan: of the model, as a dict.
        steps: clean-up: {name, labels} whose largest piece is kept, in order.
    """

    def __init__(
        self, keys: str | Sequence[str], plan: Mapping[str, Any], steps: Sequence[Mapping[str, Any]] = (),
        allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys)
        self.plan = Plan.from_dict(plan)
        self.steps = [KeepLargest(step["name"], tuple(step["labels"])) for step in steps]

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        result = dict(data)
        for key in self.key_iterator(data):
            mask = restore_labels(data[key].numpy(), data["scan"][2], self.plan)
            result[key] = apply_steps(mask, self.steps)
        return result


class SaveLabelsd(MapTransform):
    """Write labels as OUTPUT_DIR/CASE.nii.gz in the scan's own geometry.

    Args:
        keys: of the labels.
        output_dir: made if missing.
        labels: names and values, kept in the file.
    """

    def __init__(
        self, keys: str | Sequence[str], output_dir: str, labels: Mapping[str, int], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir, self.labels = Path(output_dir), dict(labels)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        name, volume, _ = data["scan"]
        for key in self.key_iterator(data):
            write_labels(self.output_dir / f"{name}.nii.gz", np.asarray(data[key]), volume, self.labels)
        return dict(data)


class BundleEvaluator:
    """Goes through a data set: inferer, then post-processing.

    Args:
        dataset: of prepared scans.
        network: on its device.
        inferer: as WindowInferer.
        postprocessing: of {'image', 'scan', 'pred'}.
        previous: of a cascade: AddPreviousd.
    """

    def __init__(
        self, dataset: Dataset, network: nn.Module, inferer: Inferer, postprocessing: Any, previous: Any = None
    ) -> None:
        self.dataset, self.network, self.inferer, self.postprocessing = dataset, network, inferer, postprocessing
        self.previous = previous

    def run(self) -> None:
        """Segment every scan."""
        for number in range(len(self.dataset)):
            item = self.dataset[number]
            item = self.previous(item) if self.previous is not None else item
            item["pred"] = self.inferer(item.pop("image")[None], self.network)[0]
            self.postprocessing(item)


def bundle_cases(dataset_dir: str) -> list[dict[str, Any]]:
    """The scans at a path, as tools/segment.py finds them: files, DICOM folders, channels by suffix."""
    return [{"image": scan} for scan in collect_scans([dataset_dir])]


def load_weights(network: nn.Module, checkpoint: str) -> None:
    """Put weights in, strictly; nothing but tensors is read."""
    network.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu"))
