"""Data to generate from: small pictures, arrays, published shards."""

import io
import tarfile

import numpy as np
import pytest
import torch
from mmpretrain.datasets.transforms import PackInputs

from mamba_vision.datasets import ArrayPictures, LatentShards, SmallPictures

PACK = [PackInputs(algorithm_keys=("text",))]


def test_digits():
    train, val = (SmallPictures("digits", split, pipeline=PACK) for split in ("train", "val"))
    assert (len(train), len(val)) == (1498, 299) and train.metainfo["classes"][3] == "3"
    item = train[0]
    assert item["inputs"].shape == (1, 8, 8) and item["inputs"].dtype == torch.uint8
    assert item["inputs"].max() > 200 and 0 <= int(item["data_samples"].gt_label) < 10
    assert SmallPictures("digits", "val", size=20, pipeline=PACK)[5]["inputs"].shape == (1, 20, 20)


def test_photographs_are_split_by_place():
    train, val = (SmallPictures("photos", split, size=32, stride=32, pipeline=PACK) for split in ("train", "val"))
    assert len(train) == 2 * 13 * 16 and len(val) == 2 * 13 * 3
    assert train[0]["inputs"].shape == (3, 32, 32) and {int(item["data_samples"].gt_label) for item in val} == {0, 1}
    seen = {bytes(item["inputs"].numpy().tobytes()) for item in train}
    assert not any(bytes(item["inputs"].numpy().tobytes()) in seen for item in val)


@pytest.mark.parametrize(("options", "message"), [(("mnist", "train"), "name: "), (("digits", "test"), "split: ")])
def test_small_pictures_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        SmallPictures(*options)


def test_arrays_of_pictures(tmp_path):
    images = np.random.randint(0, 255, (5, 4, 6, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    data = ArrayPictures("images.npy", data_root=str(tmp_path), pipeline=PACK)
    assert len(data) == 5 and torch.equal(data[3]["inputs"], torch.from_numpy(images[3]).permute(2, 0, 1))
    np.savez(tmp_path / "grey.npz", images=images[..., 0], labels=np.arange(5))
    data = ArrayPictures(tmp_path / "grey.npz", pipeline=PACK)
    assert data[4]["inputs"].shape == (1, 4, 6) and int(data[4]["data_samples"].gt_label) == 4


def test_arrays_of_latents(tmp_path):
    clips, text = np.random.randn(3, 2, 4, 8, 8).astype(np.float16), np.random.randn(3, 7, 5)
    np.savez(tmp_path / "clips.npz", images=clips, text=text)
    item = ArrayPictures(tmp_path / "clips.npz", pipeline=PACK)[1]
    assert item["inputs"].dtype == torch.float32 and item["inputs"].shape == (2, 4, 8, 8)
    torch.testing.assert_close(item["data_samples"].text, torch.from_numpy(text[1]).float())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(images=np.zeros((2, 3), np.uint8)), r"images are uint8 of shape \(2, 3\)"),
        (dict(images=np.zeros((2, 3, 3), np.float32)), r"images are float32 of shape \(2, 3, 3\)"),
        (dict(images=np.zeros((2, 3, 3), np.int64)), "images are int64"),
        (dict(images=np.zeros((2, 3, 3), np.uint8), labels=np.zeros(3)), r"found 2 images, but \{'labels': 3\}"),
        (dict(pictures=np.zeros((2, 3, 3), np.uint8)), "found arrays pictures, expected images"),
        (dict(images=np.array([{}, {}])), "Object arrays cannot be loaded"),
    ],
)
def test_bad_arrays(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        ArrayPictures(tmp_path / "bad.npz")


def write_shard(path, samples: dict[str, dict[str, np.ndarray | str]], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:
        for name, members in samples.items():
            for key, value in members.items():
                data = io.BytesIO()
                data.write(value.encode()) if isinstance(value, str) else np.save(data, value)
                member = tarfile.TarInfo(f"{name}.{key}")
                member.size = data.tell()
                data.seek(0)
                tar.addfile(member, data)


def test_shards(tmp_path):
    latents = np.random.randn(4, 4, 8, 8).astype(np.float32)
    captions = np.stack([np.full((2, 7, 5), n, np.float16) + np.arange(2)[:, None, None] for n in range(0, 40, 10)])
    for shard in range(2):
        write_shard(
            tmp_path / f"train-{shard:06}.tar",
            {
                f"{n:04}": {
                    "image.jpg": "not read", "latent.npy": latents[n], "caption.npy": captions[n], "cls_id.cls": str(n)
                }
                for n in (2 * shard, 2 * shard + 1)
            },
        )  # fmt: skip
    data = LatentShards(str(tmp_path), "latent.npy", text="caption.npy", label="cls_id.cls", pipeline=PACK)
    assert len(data) == 4
    for n, item in enumerate(data):
        assert torch.equal(item["inputs"], torch.from_numpy(latents[n])) and int(item["data_samples"].gt_label) == n
        assert item["data_samples"].text.shape == (7, 5)
    drawn = {float(data[2]["data_samples"].text[0, 0]) for _ in range(20)}
    assert drawn == {20.0, 21.0}  # one of the captions each time
    assert "gt_label" not in LatentShards(str(tmp_path), "latent.npy", pipeline=PACK)[0]["data_samples"]


def test_bad_shards(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no shards train-\*.tar"):
        LatentShards(str(tmp_path), "latent.npy")
    write_shard(tmp_path / "train-000000.tar", {"a": {"latent.npy": np.zeros(1)}, "b": {"cls": "1"}})
    with pytest.raises(ValueError, match=r"samples without latent.npy, cls: /a in"):
        LatentShards(str(tmp_path), "latent.npy", label="cls")
    with pytest.raises(ValueError, match=r"samples without vae.npy: all of them"):
        LatentShards(str(tmp_path), "vae.npy")
    write_shard(tmp_path / "train-000000.tar", {"a": {"latent.npy": np.zeros(1)}}, "w:gz")
    with pytest.raises(ValueError, match=r"train-000000.tar: expected an uncompressed tar file"):
        LatentShards(str(tmp_path), "latent.npy")
