"""A miniature of prepared cases: a bright ball (class 1) with a brighter core (class 2) in noise."""

import json
from pathlib import Path

import numpy as np

CLASSES = ("background", "ball", "core")


def make_case(root: Path, name: str, shape=(20, 24, 28), seed: int = 0, channels: int = 1) -> None:
    """One case in the folder `root`, as volumes.cache would write it."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in shape), indexing="ij"), -1)
    centre = np.array([random.uniform(0.4, 0.6) * side for side in shape])
    distance = np.linalg.norm(grid - centre, axis=-1)
    label = np.zeros(shape, dtype=np.int16)
    label[distance < 0.3 * min(shape)] = 1
    label[distance < 0.15 * min(shape)] = 2
    image = np.stack([label + 0.3 * random.standard_normal(shape) for _ in range(channels)]).astype(np.float32)
    label[:2] = -1  # as if the scan held nothing there
    image[:, :2] = 0
    folder = root / name
    folder.mkdir(parents=True)
    np.save(folder / "image.npy", image)
    np.save(folder / "label.npy", label)
    np.savez(folder / "foreground.npz", **{str(one): np.argwhere(label == one) for one in (1, 2)})
    (folder / "case.json").write_text(json.dumps({"spacing": [3.0, 1.0, 1.0]}))


def make_prepared(folder: Path, train: int = 2, val: int = 1, **options) -> tuple[Path, Path]:
    """A folder of prepared cases and a splits file of two folds; returns both paths."""
    names = [f"case_{number}" for number in range(train + val)]
    root = folder / "preprocessed"
    for seed, name in enumerate(names):
        make_case(root, name, seed=seed, **options)
    folds = [{"train": names[:train], "val": names[train:]}, {"train": names[val:], "val": names[:val]}]
    splits = folder / "splits.json"
    splits.write_text(json.dumps(folds))
    return root, splits
