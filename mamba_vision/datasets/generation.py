"""Pictures, latents and clips to learn to generate: arrays in a file, published shards.

Every item has `img`: uint8 pictures (H, W, C), or float tensors (C, H, W) or (T, C, H, W) as they are; where there
is one `gt_label`, a class number, and `text`, features (N, C). `PackInputs(algorithm_keys=('text',))` packs them.
For folders of picture files take mmpretrain's CustomDataset, for small pictures at hand SmallPictures.
"""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset

from mamba_vision.registry import DATASETS


@DATASETS.register_module()
class ArrayPictures(BaseDataset):
    """Pictures, latents or clips in one NumPy file.

    Args:
        file: .npy with (N, H, W) or (N, H, W, C) uint8 pictures, or floats (N, C, H, W) or (N, T, C, H, W); or .npz
            with these as `images`, and `labels` (N,) or `text` (N, M, C) beside them if there are any.
        data_root: folder of `file`.
        options: of MMEngine's BaseDataset, such as `pipeline`.

    Raises:
        ValueError: the file holds other arrays.
    """

    def __init__(self, file: str | Path, data_root: str = "", **options: Any) -> None:
        super().__init__(ann_file=str(file), data_root=data_root, **options)

    def load_data_list(self) -> list[dict]:
        """One entry an array; the arrays themselves stay where they are until asked for.

        Raises:
            ValueError: arrays of other names, types, axes or lengths than a data set has.
        """
        loaded = np.load(self.ann_file, mmap_mode="r", allow_pickle=False)
        arrays = {name: loaded[name] for name in loaded.files} if isinstance(loaded, Mapping) else {"images": loaded}
        if unknown := sorted(set(arrays) - {"images", "labels", "text"}) or "images" not in arrays:
            found = ", ".join(arrays)
            raise ValueError(f"{self.ann_file}: found arrays {found}, expected images and labels or text ({unknown})")
        images = arrays["images"]
        axes = (3, 4) if images.dtype == np.uint8 else (4, 5)
        if images.ndim not in axes or not (images.dtype == np.uint8 or images.dtype.kind == "f"):
            raise ValueError(
                f"{self.ann_file}: images are {images.dtype} of shape {images.shape}, expected uint8 (N, H, W[, C]) or "
                "floats (N[, T], C, H, W)"
            )
        if wrong := {name: len(array) for name, array in arrays.items() if len(array) != len(images)}:
            raise ValueError(f"{self.ann_file}: found {len(images)} images, but {wrong}")
        self._arrays = arrays
        return [{"number": number} for number in range(len(images))]

    def get_data_info(self, idx: int) -> dict:
        """Entry `idx` with its arrays."""
        info = super().get_data_info(idx)
        values = {name: array[info["number"]] for name, array in self._arrays.items()}
        return info | _item(values["images"], values.get("labels"), values.get("text"))


@DATASETS.register_module()
class LatentShards(BaseDataset):
    """Latents and their conditions in the published tar shards (webdataset's layout), read in place.

        data/celebamm256
        ├── train-000000.tar     0000.img_feature256.npy  0000.caption_clip_feature.npy  0001.img_feature256.npy ...
        └── train-000001.tar

    Members of one sample share the name up to its first dot, what follows is the key. Latents are stored unscaled.

    Args:
        data_root: the folder.
        latent: key of the latents, (C, H, W) or (T, C, H, W); video is stored as (T, C, H, W).
        text: key of text features, (captions, N, C): one caption is drawn at random in every call.
        label: key of the class number, as text.
        pattern: of the shards' names.
        options: of MMEngine's BaseDataset, such as `pipeline`.

    Raises:
        FileNotFoundError: there is no shard.
        ValueError: a sample lacks one of the keys; or a compressed shard, which can't be read in place.
    """

    def __init__(
        self,
        data_root: str,
        latent: str,
        text: str | None = None,
        label: str | None = None,
        pattern: str = "train-*.tar",
        **options: Any,
    ) -> None:
        self.keys = {role: key for role, key in (("latent", latent), ("text", text), ("label", label)) if key}
        self.pattern = pattern
        super().__init__(data_root=str(data_root), **options)

    def load_data_list(self) -> list[dict]:
        """For each sample the file, place and size of its members.

        Raises:
            FileNotFoundError: there are no shards.
            ValueError: a shard is no uncompressed tar file, or a sample lacks a member.
        """
        shards = sorted(Path(self.data_root).glob(self.pattern))
        if not shards:
            raise FileNotFoundError(f"{self.data_root}: no shards {self.pattern}; docs: configs/zigma/README.md")
        samples: dict[tuple[str, str], dict] = {}
        for shard in shards:
            try:
                with tarfile.open(shard, "r:") as tar:
                    members = [member for member in tar if member.isfile()]
            except tarfile.ReadError as error:
                raise ValueError(f"{shard}: expected an uncompressed tar file ({error})") from error
            for member in members:
                folder, _, file = member.name.rpartition("/")
                name, _, key = file.partition(".")
                for role, wanted in self.keys.items():
                    if key == wanted:
                        entry = samples.setdefault((str(shard), f"{folder}/{name}"), {"shard": str(shard)})
                        entry[role] = (member.offset_data, member.size)
        lacking = [key for key, entry in samples.items() if len(entry) != len(self.keys) + 1]
        if lacking or not samples:
            shown = ", ".join(f"{name} in {shard}" for shard, name in lacking[:5]) or "all of them"
            raise ValueError(f"{self.data_root}: samples without {', '.join(self.keys.values())}: {shown}")
        return list(samples.values())

    def get_data_info(self, idx: int) -> dict:
        """Entry `idx`, read."""
        info = super().get_data_info(idx)
        content = {}
        with Path(info["shard"]).open("rb") as file:
            for role in self.keys:
                offset, size = info[role]
                file.seek(offset)
                content[role] = file.read(size)
        arrays = {
            role: np.load(io.BytesIO(data), allow_pickle=False) for role, data in content.items() if role != "label"
        }
        text = arrays.get("text")
        if text is not None and text.ndim == 3:
            text = text[np.random.randint(len(text))]
        label = int(content["label"].decode()) if "label" in content else None
        return {"sample_idx": info["sample_idx"], **_item(arrays["latent"], label, text)}


def _item(image: np.ndarray, label: Any = None, text: np.ndarray | None = None) -> dict[str, Any]:
    """Pictures stay arrays, as transforms want them; latents become tensors, which PackInputs leaves as they are."""
    is_picture = image.dtype == np.uint8
    item: dict[str, Any] = {"img": np.array(image) if is_picture else torch.from_numpy(np.array(image, np.float32))}
    if label is not None:
        item["gt_label"] = int(label)
    if text is not None:
        item["text"] = torch.from_numpy(np.array(text, np.float32))
    return item
