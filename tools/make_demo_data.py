"""Make the demo data set: brain tissue on the MNI152 template, in nnU-Net's raw layout, without a download.

The T1 template and its gray- and white-matter maps lie inside the package nilearn. Training cases are overlapping
blocks of the right hemisphere; the test case is the whole left hemisphere. OUT then holds

    dataset.json                                  channel and label names
    imagesTr/block_1_0000.nii.gz ...              T1, NIfTI in MNI152 space (mm)
    labelsTr/block_1.nii.gz ...                   0 background, 1 gray matter, 2 white matter
    imagesTs/left_hemisphere_0000.nii.gz          the unseen hemisphere
    labelsTs/left_hemisphere.nii.gz               and its truth, for the evaluation only
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool

LABELS = {"background": 0, "gray matter": 1, "white matter": 2}
BLOCK_MM = (None, 84.0, 96.0)  # a training block: the hemisphere's whole width, length and height in mm
MARGIN_MM = 6.0  # air left around the brain


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write, e.g. data/demo")
    parser.add_argument("--resolution", type=int, choices=(1, 2, 3, 4), default=2, help="voxel size in mm (default 2)")
    parser.add_argument("--overwrite", action="store_true", help="write into OUT even if it holds files")
    args = parser.parse_args()
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"{args.out} is a file; OUT is the folder to write")
    if args.out.is_dir() and any(args.out.iterdir()) and not args.overwrite:
        parser.error(f"{args.out} is not empty; choose another folder or add --overwrite")
    return args


def load_template(resolution: int):
    """T1 (0 to 1) and labels, both (X, Y, Z), and the affine of the MNI152 template at `resolution` mm."""
    try:
        from nilearn import datasets
    except ImportError:
        message = 'The demo data come from the package nilearn, which is missing: pip install "nilearn>=0.11"'
        raise SystemExit(message) from None
    import warnings

    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nilearn announces future defaults of its own
        t1 = datasets.load_mni152_template(resolution=resolution)
        gray = datasets.load_mni152_gm_template(resolution=resolution)
        white = datasets.load_mni152_wm_template(resolution=resolution)
    image = np.clip(t1.get_fdata(dtype=np.float32), 0, None)
    image[image < 1e-3] = 0  # interpolation rings a little around the skull-stripped brain; air is exactly 0
    gray, white = gray.get_fdata(dtype=np.float32), white.get_fdata(dtype=np.float32)
    labels = np.argmax([1 - gray - white, gray, white], axis=0).astype(np.uint8)
    return image, labels, t1.affine


def blocks(low, high, size) -> list[tuple[slice, ...]]:
    """Overlapping boxes of `size` voxels that cover the box from `low` to `high` with as few as possible an axis."""
    import itertools
    import math

    axes = []
    for first, last, side in zip(low, high, size):
        side = min(side, last - first)
        count = math.ceil((last - first) / side)
        step = (last - first - side) / max(count - 1, 1)
        axes.append([slice(start, start + side) for start in (first + round(i * step) for i in range(count))])
    return list(itertools.product(*axes))


def save(path: Path, array, affine) -> None:
    import nibabel as nib

    from mamba_vision.utils.atomic import atomic_path

    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="mni")
    image.set_qform(affine, code="mni")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def main() -> None:
    args = parse_args()

    import numpy as np
    from nibabel.affines import apply_affine

    from mamba_vision.utils.atomic import write_json
    from mamba_vision.utils.wording import command

    image, labels, affine = load_template(args.resolution)
    brain = [np.flatnonzero((image > 0).any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    margin = round(MARGIN_MM / args.resolution)
    low = [max(where[0] - margin, 0) for where in brain]
    high = [min(where[-1] + 1 + margin, side) for where, side in zip(brain, image.shape)]
    middle = round(float(apply_affine(np.linalg.inv(affine), [0, 0, 0])[0]))  # the column x = 0 belongs to neither side

    def write(case: str, box: tuple[slice, ...], end: str) -> None:
        shifted = affine.copy()
        shifted[:3, 3] = apply_affine(affine, [side.start for side in box])
        save(args.out / f"images{end}" / f"{case}_0000.nii.gz", image[box], shifted)
        save(args.out / f"labels{end}" / f"{case}.nii.gz", labels[box], shifted)
        shape = " x ".join(str(side.stop - side.start) for side in box)
        print(f"  {f'images{end}/{case}_0000.nii.gz':42} {shape} voxels")

    print(f"MNI152 T1 template at {args.resolution} mm -> {args.out}")
    right_low, right_high = [middle + 1, *low[1:]], high
    sides = [right_high[0] - right_low[0]] + [round(mm / args.resolution) for mm in BLOCK_MM[1:]]
    boxes = blocks(right_low, right_high, sides)
    for number, box in enumerate(boxes, 1):
        write(f"block_{number}", box, "Tr")
    write("left_hemisphere", (slice(low[0], middle), *(slice(a, b) for a, b in zip(low[1:], high[1:]))), "Ts")
    write_json(
        args.out / "dataset.json",
        {
            "name": "MNI152 brain tissue",
            "description": "Gray and white matter of the MNI152 T1 template (ICBM 2009a, nonlinear, symmetric)",
            "channel_names": {"0": "T1"},
            "labels": LABELS,
            "numTraining": len(boxes),
            "file_ending": ".nii.gz",
        },
    )
    print(
        f"""
What this is: one brain, the skull-stripped average of 152 people's T1 MRI; labels are the likelier of its gray- and
white-matter maps (background elsewhere). {len(boxes)} overlapping blocks of the right hemisphere are for training, the
left hemisphere is the unseen test. The template is left-right symmetric, so the test shows that the whole pipeline
works and that what is learnt carries over to a mirrored, uncut hemisphere; it says nothing about other people's scans.

Next:  {command("tools/plan.py", args.out, "--work-dir", Path("work_dirs") / args.out.name, "--preset", "fast")}"""
    )


if __name__ == "__main__":
    sys.exit(run_tool(main))
