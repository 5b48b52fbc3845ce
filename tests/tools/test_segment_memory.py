"""tools/segment.py on a CT of many slices and classes, in a memory that the kernel enforces.

A scan of 256 x 256 x 350 voxels is an eighth of 512 x 512 x 700, and so are its limits; docs/how-to/segment-scans.md
has the figures of the whole one. The logits of its 16 classes would take 1.4 GiB.
"""

import json
import os
import resource
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from segmentation_case import make_work_dir

from mamba_vision.utils.paths import project_folder

LIMIT = 2**30  # an eighth of 8 GiB
CLASSES = 16


def _scan(path, shape=(256, 256, 350)):
    """A body with an organ; class k is where the intensity is nearest to k."""
    across, along = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape[:2]), indexing="ij")
    scan = np.zeros(shape, np.int16)
    scan[((across / 0.9) ** 2 + (along / 0.7) ** 2 < 1)] = 3
    scan[100:140, 90:120, 40:300] = 9
    scan[0, 0, 0] = scan[-1, -1, -1] = 1  # nothing is cropped, as the air of a CT is not 0
    nib.save(nib.Nifti1Image(scan, np.diag([-1.6, -1.6, 2.0, 1.0])), path)
    return scan


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's memory limit")
def test_an_eighth_of_a_large_ct_in_an_eighth_of_eight_gigabytes(tmp_path):
    labels = {"background": 0, **{f"organ {value}": value for value in range(1, CLASSES)}}
    work = make_work_dir(tmp_path / "work", ("CT",), labels, patch=(48, 80, 80))
    plan = json.loads((work / "plan.json").read_text())
    (work / "plan.json").write_text(json.dumps({**plan, "spacing": [2.0, 1.6, 1.6], "batch_size": 1}))
    scan = _scan(tmp_path / "scan.nii.gz")
    # What the imports take does not shrink with the scan: it is measured, and comes on top.
    probe = "import re, mamba_vision.apis.segmentation_workers, mamba_vision.models, highdicom; "
    probe += "print(re.search(r'VmData:\\s*(\\d+)', open('/proc/self/status').read())[1])"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "131072"}
    taken = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, env=environment)
    limit = LIMIT + 1024 * int(taken.stdout.split()[-1])
    run = subprocess.run(
        [sys.executable, project_folder("tools") / "segment.py", work, tmp_path / "scan.nii.gz", "--out",
         tmp_path / "out", "--tta", "none", "--overlap", "0.25", "--max-memory", "256M", "--device", "cpu"],
        capture_output=True, text=True, check=False, env=environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1.4 GiB of logits in a temporary file" in run.stdout
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "out" / "scan.nii.gz").dataobj), scan)
