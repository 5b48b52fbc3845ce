"""Every family of models goes into an ONNX file that gives what PyTorch gives, at sizes other than the traced one.

The smallest network of each; `export_onnx` itself runs both and refuses what differs by more than 1e-4.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mamba_vision.apis import get_model
from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.model_names import find_variant, variants
from mamba_vision.apis.onnx_export import Report, export_onnx
from mamba_vision.apis.onnx_models import from_variant
from mamba_vision.apis.onnx_tasks import classifier
from mamba_vision.deploy.torch_graph import ExportError
from mamba_vision.utils.paths import project_folder

_SSD = dict(d_state=16, ssm_ratio=1.0, ssm_act="gelu", ssm_init="v2", forward_type="m0_noz", norm_layer="ln")
_PLANE, _SPACE = ("batch", "height", "width"), ("batch", "depth", "height", "width")
# A name of list_models(), what is changed to make it small, the size, and what stays free.
FAMILIES: list[tuple[str, dict[str, Any], int, tuple[str, ...]]] = [
    ("vim_test", dict(arch=dict(embed_dims=32, num_layers=2)), 32, _PLANE),
    ("vmamba_test", dict(arch=dict(dims=16, depths=(1, 1), ssm_ratio=1.0)), 40, _PLANE),
    ("vmamba_tiny_m2", dict(arch=dict(dims=16, depths=(1, 1), **_SSD)), 40, _PLANE),
    ("vmamba_test_vanilla", dict(arch=dict(dims=16, depths=(1, 1), forward_type="v0", ssm_ratio=2.0)), 40, _PLANE),
    ("localvim_test", dict(arch=dict(embed_dims=32, num_layers=2)), 32, _PLANE),
    ("localvmamba_test", dict(arch=dict(dims=16, depths=(1, 1))), 40, _PLANE),
    ("rsmamba_test", {}, 32, ("batch",)),  # shuffles tokens by a table
    ("umamba_bot_tiny", {}, 16, _SPACE),
    ("umamba_enc_tiny", {}, 16, _SPACE),
    ("umamba_bot_tiny_2d", {}, 32, _PLANE),
    ("segmamba_tiny", {}, 32, _SPACE),
    ("lightmunet_tiny", dict(init_filters=32), 16, _SPACE),  # fewer amplify rounding: LayerNorm behind ReLU
    ("plainunet_tiny", {}, 16, _SPACE),
    ("monaiunet_tiny", {}, 16, _SPACE),  # one voxel at its deepest, were it not padded
    ("mambair_tiny", {}, 24, _PLANE),
    ("mambair_tiny_denoise", {}, 24, _PLANE),
    ("mambairv2_tiny", {}, 24, _PLANE),
    ("mambairunet_tiny", {}, 24, _PLANE),
    ("mambadfuse_tiny", {}, 24, _PLANE),
    ("fusionmamba_tiny", {}, 16, (*_PLANE, "guide_height", "guide_width")),
    ("promamba_test", {}, 48, _PLANE),
]
REFUSED = {"ZigMa"}  # a generator: many steps, of which a file would hold one


def export(name: str, changes: dict[str, Any], size: int, free: tuple[str, ...], folder: Path) -> Report:
    torch.manual_seed(0)
    variant = find_variant(name)
    if variant.is_backbone:
        found = classifier(get_model(name, num_classes=5, **changes), {}, None)
    else:
        found = from_variant(replace(variant, options={**variant.options, **changes}))
    found.module.eval()
    return export_onnx(found, None, folder / "m.onnx", [size], free)


def test_no_family_is_forgotten() -> None:
    covered = {find_variant(name).system.__name__ for name, *_ in FAMILIES}
    assert covered | REFUSED == {variant.system.__name__ for variant in variants().values()}
    with pytest.raises(ExportError, match=r"a generator makes pictures in many steps.*use tools/sample.py"):
        from_variant(find_variant("zigma_tiny"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "changes", "size", "free"), FAMILIES, ids=[name for name, *_ in FAMILIES])
def test_family(name: str, changes: dict[str, Any], size: int, free: tuple[str, ...], tmp_path: Path) -> None:
    report = export(name, changes, size, free, tmp_path)
    assert report.free == free and report.error <= 1e-4 and len(report.checks) == 2
    if "height" in free:
        assert report.checks[0]["inputs"][0][2:] != report.checks[1]["inputs"][0][2:]


HEADS = {
    "vmamba/vmamba-tiny-s1l8_upernet_8xb2-160k_ade20k-512x512.py": (
        dict(arch=dict(dims=16, depths=(1, 1, 1, 1), ssm_ratio=1.0)), [16, 32, 64, 128], 64),
    "localmamba/local-vmamba-tiny_upernet_8xb2-160k_ade20k-512x512.py": (
        dict(arch=dict(dims=16, depths=(1, 1, 1, 1))), [16, 32, 64, 128], 64),
    "vim/vim-tiny_upernet_4xb8-60k_ade20k-512x512.py": (
        dict(arch=dict(embed_dims=16, num_layers=4), out_indices=(0, 1, 2, 3)), [16] * 4, 64),
    "localmamba/local-vim-tiny_upernet_8xb2-160k_ade20k-512x512.py": (
        dict(arch=dict(embed_dims=16, num_layers=4), out_indices=(0, 1, 2, 3)), [16] * 4, 64),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "head"), [*((config, "UPerHead") for config in HEADS), (next(iter(HEADS)), "FCNHead")],
    ids=lambda name: name.split("_")[0],
)  # fmt: skip
def test_segmentor(config: str, head: str, tmp_path: Path) -> None:
    """The published configurations with the backbone and the head made small."""
    backbone, channels, size = HEADS[config]
    cfg = load_config(project_folder("configs") / config)
    cfg.model.backbone.update(backbone)
    if head == "FCNHead":
        cfg.model.decode_head = dict(type=head, in_channels=channels[2], in_index=2, num_convs=1, align_corners=False)
    else:
        cfg.model.decode_head.in_channels = channels
    cfg.model.decode_head.update(channels=8, num_classes=5, norm_cfg=dict(type="BN"))
    cfg.model.auxiliary_head = None
    cfg.dump(tmp_path / "small.py")
    report = export_onnx(tmp_path / "small.py", None, tmp_path / "m.onnx", [size], _PLANE)
    assert report.task == "segmentation" and report.error <= 1e-4 and report.free == _PLANE
