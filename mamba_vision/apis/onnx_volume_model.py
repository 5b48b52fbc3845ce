"""An exported model (.onnx) in place of a trained one: tools/segment.py and `inference_volume` take it as any other.

ONNX Runtime predicts the windows; reading, preparing, adding up and writing is what it is with PyTorch. Without PyTorch
there is mamba_vision.deploy.
"""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mamba_vision.apis.volume_ensemble import VolumeEnsemble
from mamba_vision.deploy.model_file import ModelFile, providers_of
from mamba_vision.deploy.scans import check_lowres, lowres_file, scan_settings
from mamba_vision.models.tasks import VolumeSegmentor


class OnnxWindows(nn.Module):
    """Windows (B, C, *S) to logits (B, K, *S) by ONNX Runtime; one after another where the file has a fixed batch."""

    def __init__(self, model: ModelFile) -> None:
        super().__init__()
        self.model = model
        # Those who ask a model where it is look at its weights: the runtime takes and gives main memory.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, windows: Tensor) -> Tensor:
        arrays = np.ascontiguousarray(windows.detach().float().numpy())
        batch = self.model.side(0) or len(arrays)
        found = [self.model(arrays[start : start + batch]) for start in range(0, len(arrays), batch)]
        return torch.from_numpy(found[0] if len(found) == 1 else np.concatenate(found))


def init_onnx_volume_model(
    path: str | Path,
    device: str | torch.device | None = None,
    lowres: str | Path | None = None,
    library: str | Path | None = None,
) -> VolumeSegmentor:
    """A model for scans that tools/export_onnx.py wrote.

    Args:
        path: the file.
        device: 'cpu' (default), or 'cuda', 'cuda:1' where the installed ONNX Runtime can use it.
        lowres: a cascade's first file; default: the one beside, MODEL_lowres.onnx.
        library: our operators for ONNX Runtime.

    Raises:
        FileNotFoundError: no such file, or no first file of a cascade.
        ValueError: a damaged file or one of another kind, or a device that the runtime cannot use.
    """
    path = Path(path)
    model = ModelFile(path, library, providers=providers_of(str(device or "cpu")))
    plan, axes, steps = scan_settings(model)
    segmentor = VolumeSegmentor(OnnxWindows(model), mirror_axes=axes, plan=plan.to_dict())
    segmentor.checkpoint, segmentor.trained_fold, segmentor.built_in_steps = path, None, steps
    described = {"model": {"network": {"type": "ONNX"}}}
    segmentor.cfg = Config(described, cfg_text="# exported", filename=str(path))
    if plan.cascaded:
        first = init_onnx_volume_model(lowres or lowres_file(path), device, None, library)
        ensemble = VolumeEnsemble(((first,),))
        check_lowres(path, plan, first.checkpoint, ensemble.plans[0])
        object.__setattr__(segmentor, "low_resolution", ensemble)  # not a submodule, as with trained models
    elif lowres is not None:
        raise ValueError(f"{path}: is no cascade, so that it has no use for {lowres}")
    return segmentor.eval()
