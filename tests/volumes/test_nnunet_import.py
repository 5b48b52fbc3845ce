"""Plans files of nnU-Net become plans of ours, of both forms that nnU-Net has written."""

import json

import numpy as np
import pytest
from scan_files import LABELS, NUMBERS, affine, labels, make_dataset, save, voxels

from mamba_vision.apis import plan_dataset
from mamba_vision.registry import MODELS
from mamba_vision.volumes import VolumeError
from mamba_vision.volumes.label_scheme import LabelScheme
from mamba_vision.volumes.nnunet_plans import plans_from_nnunet, read_nnunet_plans

# A case of 18 x 20 x 16 voxels of 1 x 1 x 2 mm, as nnU-Net sees it: z, y, x.
COMMON = {
    "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor", "batch_size": 3,
    "patch_size": [8, 16, 24], "median_image_size_in_voxels": [13.0, 17.5, 14.0], "spacing": [2.0, 1.0, 1.25],
    "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False], "batch_dice": True,
    "resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_data_kwargs": {"order": 3},
}  # fmt: skip
STAGES = {"kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}
OLD = {
    **COMMON, "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 32, "n_conv_per_stage_encoder": [2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2], "num_pool_per_axis": [1, 2, 2], "pool_op_kernel_sizes": STAGES["strides"],
    "conv_kernel_sizes": STAGES["kernels"], "unet_max_num_features": 100,
}  # fmt: skip
RESIDUAL = {
    **COMMON,
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        "arch_kwargs": {
            "n_stages": 3, "features_per_stage": [24, 48, 96], "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": STAGES["kernels"], "strides": STAGES["strides"], "n_blocks_per_stage": [1, 3, 4],
            "n_conv_per_stage_decoder": [1, 1], "conv_bias": True,
        },
        "_kw_requires_import": ["conv_op"],
    },
}  # fmt: skip


def write(folder, configurations, **changes):
    content = {
        "dataset_name": "Dataset007_Small", "plans_name": "nnUNetPlans", "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2], "image_reader_writer": "SimpleITKIO", "configurations": configurations,
        "original_median_spacing_after_transp": [2.0, 1.0, 1.25],
        "original_median_shape_after_transp": [13, 17, 14],
        "foreground_intensity_properties_per_channel": {"0": {**NUMBERS, "median": 100, "min": 0, "max": 300}},
        **changes,
    }  # fmt: skip
    path = folder / "nnUNetPlans.json"
    path.write_text(json.dumps(content))
    return path


def taken(path, matrix=None, **options):
    scheme = options.pop("scheme", LabelScheme(LABELS))
    return plans_from_nnunet(
        read_nnunet_plans(path), "Small", ["CT"], scheme, affine() if matrix is None else matrix, **options
    )


def test_the_form_of_nnunet_2_1(tmp_path):
    plans, notes = taken(write(tmp_path, {"2d": {}, "3d_fullres": OLD}), model="nnunet")
    (plan,) = plans.values()
    assert plan.configuration == "3d_fullres" and plan.axes == (2, 1, 0) and plan.batch_dice
    assert (plan.spacing, plan.patch_size, plan.batch_size) == ((2.0, 1.0, 1.25), (8, 16, 24), 3)
    assert plan.normalization == ["ct"] and plan.intensities == [NUMBERS] and plan.median_shape == (13, 18, 14)
    assert plan.network["type"] == "PlainUNet" and plan.network["features"] == [32, 64, 100]
    assert (plan.network["kernel_sizes"], plan.network["strides"]) == (STAGES["kernels"], STAGES["strides"])
    assert plan.reasons["spacing"] == "nnUNetPlans.json, 3d_fullres" and notes == []


def test_the_form_since_2_2_with_a_cascade(tmp_path):
    low = {**RESIDUAL, "spacing": [3.0, 2.0, 2.5], "batch_dice": False}
    configurations = {
        "3d_fullres": RESIDUAL,
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        "3d_lowres": low,
        "3d_mine": {"inherits_from": "3d_fullres", "batch_size": 9},
    }
    plans, notes = taken(write(tmp_path, configurations))
    assert list(plans) == ["3d_fullres", "3d_lowres", "3d_cascade_fullres"]
    assert plans["3d_lowres"].spacing == (3.0, 2.0, 2.5) and not plans["3d_lowres"].batch_dice
    assert plans["3d_cascade_fullres"].network["in_channels"] == 3 and plans["3d_cascade_fullres"].cascaded
    network = plans["3d_fullres"].network
    assert network["features"] == [24, 48, 96] and network["n_blocks"] == [1, 3, 4]
    built = MODELS.build(dict(network, _scope_="mamba_vision"))
    assert [len(stage) for stage in built.encoder.stages] == [1, 3, 1]  # deep ones have one, as published
    assert any("ResidualEncoderUNet" in note and "UMamba gets its stages" in note for note in notes)
    assert any("3d_mine" in note for note in notes) and any("may need more memory" in note for note in notes)


def test_slices(tmp_path):
    flat = {**OLD, "patch_size": [16, 24], "spacing": [1.0, 1.25], "median_image_size_in_voxels": [17.5, 14.0],
            "conv_kernel_sizes": [[3, 3]] * 3, "pool_op_kernel_sizes": [[1, 1], [2, 2], [2, 2]]}  # fmt: skip
    plans, _ = taken(write(tmp_path, {"2d": flat}))
    plan = plans["2d"]
    assert plan.slicewise and plan.patch_size == (1, 16, 24) and plan.spacing == (2.0, 1.0, 1.25)
    assert plan.median_shape == (13, 18, 14) and plan.network["spatial_dims"] == 2


def test_a_network_with_stages_of_its_own(tmp_path):
    plans, notes = taken(write(tmp_path, {"3d_fullres": OLD}), model="segmamba")
    assert plans["3d_fullres"].patch_size == (16, 16, 32) and plans["3d_fullres"].network["type"] == "SegMamba"
    assert any("SegMamba has its own" in note for note in notes)


@pytest.mark.parametrize(
    ("columns", "transpose", "reader", "axes"),
    [
        ([0, 1, 2], [0, 1, 2], "SimpleITKIO", (2, 1, 0)),
        ([1, 2, 0], [0, 1, 2], "SimpleITKIO", (0, 2, 1)),  # stored front, up, right: nnU-Net's z is to the right
        ([1, 2, 0], [2, 0, 1], "NibabelIO", (1, 0, 2)),
        ([1, 2, 0], [2, 0, 1], "NibabelIOWithReorient", (0, 2, 1)),
    ],
)
def test_axes_are_the_patients(tmp_path, columns, transpose, reader, axes):
    """`columns`: the canonical axis of each stored one; a flip changes nothing."""
    matrix = np.zeros((4, 4))
    matrix[columns, [0, 1, 2]], matrix[3, 3] = (-1.0, 1.0, 2.0), 1
    path = write(tmp_path, {"3d_fullres": OLD}, transpose_forward=transpose, image_reader_writer=reader)
    assert taken(path, matrix)[0]["3d_fullres"].axes == axes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(configurations={"2d_mine": {}}), "configurations 2d_mine"),
        (dict(configurations={"3d_fullres": {"inherits_from": "3d_none"}}), "inherits from '3d_none'"),
        (dict(configurations={"3d_fullres": {**OLD, "patch_size": None}}), "3d_fullres: TypeError"),
        (dict(configurations={"3d_fullres": COMMON}), "KeyError 'conv_kernel_sizes'"),
        (dict(configurations=None, plans_per_stage={}), "plans of nnU-Net v1"),
        (dict(transpose_forward=[0]), "transpose_forward"),
        (dict(foreground_intensity_properties_per_channel={}), "intensities of 0 channels"),
    ],
)
def test_files_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(VolumeError, match=message):
        taken(write(tmp_path, **{"configurations": {"3d_fullres": OLD}, **changes}))


def test_a_configuration_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="has 3d_fullres, but not 3d_lowres"):
        taken(write(tmp_path, {"3d_fullres": OLD}), configurations=["3d_fullres", "3d_lowres"])


def test_a_work_folder_with_nnunets_plan_and_folds(tmp_path):
    data = make_dataset(tmp_path / "data", cases=3)
    for name in "abc":  # stored x down, as some scanners do it
        matrix = affine((1.0, 1.25, 2.0)) @ np.diag([-1, 1, 1, 1])
        save(data / "imagesTr" / f"{name}_0000.nii.gz", voxels(seed=ord(name)), matrix)
        save(data / "labelsTr" / f"{name}.nii.gz", labels(), matrix)
    path = write(tmp_path, {"3d_fullres": {**OLD, "spacing": [2.0, 1.25, 1.0], "patch_size": [8, 16, 16]}})
    folds = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a", "b"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    planned = plan_dataset(data, tmp_path / "work", nnunet_plans=path, channels=["CT"], pictures=0)
    assert planned.splits == folds and planned.plan.spacing == (2.0, 1.25, 1.0) and planned.plan.axes == (2, 1, 0)
    assert planned.plan.intensities == [NUMBERS] and any("splits_final.json" in note for note in planned.notes)
    assert not planned.others and "patch_size = (8, 16, 16)" in planned.config
    with pytest.raises(ValueError, match="spacing: nnunet_plans says it already"):
        plan_dataset(data, tmp_path / "work", nnunet_plans=path, spacing=(1, 1, 1))
