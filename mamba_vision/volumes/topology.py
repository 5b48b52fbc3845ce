"""From voxel spacing to the shape of a U-Net: nnU-Net's rules, as pure functions on numbers.

After nnU-Net (Isensee et al., Nature Methods 18, 2021, and its release 2.1, which U-Mamba's plans come from). The rules
do not know state space layers: published U-Mamba networks use them as they are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_EDGE = 4  # voxels: no axis is pooled below this
ANISOTROPY = 3  # a spacing this many times another is coarse
REFERENCE_ESTIMATE = {2: 85e6, 3: 560e6}  # feature-map elements at batch 1, by the number of axes, ...
REFERENCE_BATCH = {2: 12, 3: 2}  # ... that a batch of this many patches ...
REFERENCE_GB = 8  # ... trains with in this much GPU memory
MOST_FEATURES = {2: 512, 3: 320}  # of a stage
MIN_BATCH = 2
MAX_SHARE = 0.05  # of the data set's voxels that one batch may hold
_ISOTROPIC_VOXELS = {2: 2048**2, 3: 256**3}  # the patch that the search starts from


@dataclass(frozen=True)
class Topology:
    """Stages of a U-Net for one patch, finest first; every tuple along the network's axes."""

    patch_size: tuple[int, ...]  # rounded up to what the strides divide
    strides: tuple[tuple[int, ...], ...]  # entering each stage; the first is all 1
    kernel_sizes: tuple[tuple[int, ...], ...]

    @property
    def divisor(self) -> tuple[int, ...]:
        """What every side of an input must be a multiple of."""
        return tuple(math.prod(stride[axis] for stride in self.strides) for axis in range(len(self.patch_size)))


def make_topology(spacing: Sequence[float], patch_size: Sequence[float]) -> Topology:
    """Where to pool and with which kernels.

    Repeatedly, of the axes with at least 2 * MIN_EDGE voxels left, those whose spacing is below twice the finest of
    them are halved; a single axis only while it has 3 * MIN_EDGE voxels. A kernel side is 1 until its axis' spacing
    is below twice the finest of all, then 3 for good; the deepest stage has 3 everywhere.
    """
    spacing, size = list(map(float, spacing)), list(map(float, patch_size))
    axes = range(len(size))
    strides, kernels, kernel, pools = [(1,) * len(size)], [], [1] * len(size), [0] * len(size)
    while True:
        large = [axis for axis in axes if size[axis] >= 2 * MIN_EDGE]
        if not large:
            break
        finest = min(spacing[axis] for axis in large)
        chosen = [axis for axis in large if spacing[axis] / finest < 2]
        if len(chosen) == 1 and size[chosen[0]] < 3 * MIN_EDGE:
            break
        kernel = [3 if side == 3 or spacing[axis] / min(spacing) < 2 else 1 for axis, side in enumerate(kernel)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in chosen else 1 for axis in axes))
        for axis in chosen:
            spacing[axis] *= 2
            size[axis] = math.ceil(size[axis] / 2)
            pools[axis] += 1
    kernels.append((3,) * len(size))
    padded = tuple(math.ceil(side / 2**n) * 2**n for side, n in zip(patch_size, pools))
    return Topology(padded, tuple(strides), tuple(kernels))


def feature_widths(stages: int, base: int = 32, most: int = 320) -> tuple[int, ...]:
    """Channels of each stage: doubled from `base` up to `most`."""
    return tuple(min(base * 2**stage, most) for stage in range(stages))


def memory_estimate(topology: Topology, classes: int) -> int:
    """Elements of all feature maps of nnU-Net's plain U-Net at batch 1: the planner's measure of GPU memory.

    Two convolutions a stage in encoder and decoder, one up-sampling a decoder stage, one set of logits.
    """
    widths = feature_widths(len(topology.strides), most=MOST_FEATURES[len(topology.patch_size)])
    size, voxels = np.array(topology.patch_size), []
    for stride in topology.strides:
        size = size // np.array(stride)
        voxels.append(int(np.prod(size)))
    encoder = sum(2 * width * count for width, count in zip(widths, voxels))
    decoder = sum(3 * width * count for width, count in zip(widths[:-1], voxels[:-1]))
    return encoder + decoder + classes * voxels[0]


def fit_patch(
    spacing: Sequence[float], median_shape: Sequence[float], classes: int, vram_gb: float = REFERENCE_GB
) -> Topology:
    """The largest patch, in the shape of the data, whose network trains with a batch of two in `vram_gb`.

    Starts from a cube in millimetres of 256^3 voxels (a square of 2048^2 pixels), cut to the median shape. While it is
    too large, the axis that is longest in proportion to the median shape gives up one multiple of its divisor; the
    divisor is that of the smaller patch, so that 224 follows 256 and is not skipped.
    """
    inverse = 1 / np.asarray(spacing, dtype=np.float64)
    dims = len(inverse)
    cube = np.array([round(side) for side in inverse * (_ISOTROPIC_VOXELS[dims] / inverse.prod()) ** (1 / dims)])
    topology = make_topology(spacing, np.minimum(cube, median_shape))
    allowed = REFERENCE_ESTIMATE[dims] * vram_gb / REFERENCE_GB
    while memory_estimate(topology, classes) / REFERENCE_BATCH[dims] * MIN_BATCH > allowed:
        patch, divisor = np.array(topology.patch_size), topology.divisor
        axis = int(np.argsort(patch / np.asarray(median_shape, dtype=np.float64))[-1])
        smaller = patch.copy()
        smaller[axis] -= divisor[axis]
        if smaller[axis] < 1:
            break
        patch[axis] -= make_topology(spacing, smaller).divisor[axis]
        if patch[axis] < 1 or tuple(patch) == topology.patch_size:
            break
        topology = make_topology(spacing, patch)
    return topology


def fit_batch(topology: Topology, classes: int, dataset_voxels: float, vram_gb: float = REFERENCE_GB) -> int:
    """Patches a batch: what `vram_gb` holds, at most MAX_SHARE of the data set's voxels, at least MIN_BATCH."""
    dims = len(topology.patch_size)
    allowed = REFERENCE_ESTIMATE[dims] * vram_gb / REFERENCE_GB
    fits = round(allowed / memory_estimate(topology, classes) * REFERENCE_BATCH[dims])
    share = round(dataset_voxels * MAX_SHARE / math.prod(topology.patch_size))
    return max(min(fits, share), MIN_BATCH)
