"""NRRD, MetaImage and surfaces: what other programs read from them lies where the mask lay."""

import json

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from mamba_vision.visualization.surfaces import rotating_surface
from mamba_vision.volumes.sitk_writing import write_sitk_labels
from mamba_vision.volumes.surfaces import label_surface, write_surface
from mamba_vision.volumes.volume import Volume, VolumeError

ANGLE = np.deg2rad(25)
OBLIQUE = np.array(
    [[0, -2.5 * np.cos(ANGLE), 0.3, 40], [1.5, 0, 0, -12], [0, 2.5 * np.sin(ANGLE), -3, 7], [0, 0, 0, 1]]
)
AFFINES = {"plain": np.diag([1.0, 2, 3, 1]), "flipped": np.diag([-1.0, 2, -3, 1]), "oblique and sheared": OBLIQUE}


def _mask(shape=(7, 6, 5)):
    return np.random.default_rng(0).choice(np.array([0, 1, 300]), shape)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_nrrd_and_mha(affine, ending, tmp_path):
    mask = _mask()
    like = Volume(np.zeros((1, *mask.shape), np.float32), affine)
    path = write_sitk_labels(tmp_path / f"mask{ending}", mask, like, {"background": 0, "Leber": 1, "x": 300})
    found = SimpleITK.ReadImage(str(path))
    assert found.GetPixelIDTypeAsString() == "16-bit unsigned integer"
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found).transpose(2, 1, 0), mask)
    for index in ((0, 0, 0), (6, 0, 0), (0, 5, 0), (3, 2, 4)):
        x, y, z = found.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose([-x, -y, z], (affine @ [*index, 1])[:3], atol=1e-4)
    assert json.loads(found.GetMetaData("labels")) == {"background": 0, "Leber": 1, "x": 300}


def test_what_is_no_label_map_is_refused(tmp_path):
    like = Volume(np.zeros((1, 7, 6, 5), np.float32), np.eye(4))
    with pytest.raises(VolumeError, match=r"expected \.nrrd or \.mha"):
        write_sitk_labels(tmp_path / "a.mhd", _mask(), like)
    for labels in (_mask((3, 3, 3)), _mask().astype(float)):
        with pytest.raises(ValueError, match=r"labels: expected integers of shape \(7, 6, 5\)"):
            write_sitk_labels(tmp_path / "a.mha", labels, like)
    assert not list(tmp_path.iterdir())


def _ball(radius_mm=12.0):
    """(mask, affine): a ball of label 3 around (20, 21, 22) mm, with another label in it."""
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    index = np.stack(np.meshgrid(*map(np.arange, (40, 28, 22)), indexing="ij"), -1)
    distance = np.linalg.norm(index @ affine[:3, :3].T - [20, 21, 22], axis=-1)
    mask = np.where(distance < radius_mm, 3, 0).astype(np.uint8)
    mask[distance < 4] = 5
    return mask, affine


@pytest.mark.parametrize("flip", [1, -1])
def test_a_surface_encloses_what_the_voxels_fill(flip):
    mask, affine = _ball()
    affine = np.diag([flip, 1.0, 1.0, 1.0]) @ affine  # a mirrored grid must not turn the surface inside out
    surface = label_surface(np.minimum(mask, 3), 3, affine)
    assert surface.volume_ml == pytest.approx((mask > 0).sum() * 3 / 1000, rel=0.03)
    radii = np.linalg.norm(surface.points - [20 * flip, 21, 22], axis=1)
    assert radii.min() > 10.8 and radii.max() < 13.2
    stairs = label_surface(np.minimum(mask, 3), 3, affine, smooth=False)
    assert np.linalg.norm(stairs.points - [20 * flip, 21, 22], axis=1).std() > 1.3 * radii.std()
    assert label_surface(mask, 9, affine) is None
    assert len(label_surface(mask, 3, affine, step=2).triangles) < len(surface.triangles) / 2


def test_a_structure_at_the_border_is_closed():
    mask = np.ones((4, 5, 6), np.uint8)
    surface = label_surface(mask, 1, np.eye(4), smooth=False)
    edges = np.sort(np.concatenate([surface.triangles[:, pair] for pair in ((0, 1), (1, 2), (2, 0))]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    np.testing.assert_allclose([surface.points.min(0), surface.points.max(0)], [[-0.5] * 3, [3.5, 4.5, 5.5]])


def test_ply_and_stl(tmp_path):
    mask, affine = _ball()
    surface = label_surface(mask, 3, affine)
    content = write_surface(tmp_path / "a.ply", surface, (1.0, 0.5, 0.0)).read_bytes()
    head, body = content.split(b"end_header\n", 1)
    assert (
        b"element vertex %d\n" % len(surface.points) in head and b"element face %d\n" % len(surface.triangles) in head
    )
    vertices = np.frombuffer(body[: 15 * len(surface.points)], [("place", "<f4", 3), ("colour", "u1", 3)])
    np.testing.assert_array_equal(vertices["place"], surface.points)
    assert vertices["colour"][0].tolist() == [255, 128, 0]
    faces = np.frombuffer(body[15 * len(surface.points) :], [("corners", "u1"), ("index", "<i4", 3)])
    np.testing.assert_array_equal(faces["index"], surface.triangles)
    content = write_surface(tmp_path / "a.stl", surface).read_bytes()
    assert len(content) == 84 + 50 * len(surface.triangles) and b"SPACE=RAS" in content[:80]
    corners = np.frombuffer(content[84:], [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])
    np.testing.assert_array_equal(corners["corners"], surface.points[surface.triangles])
    outward = corners["corners"].mean(1) - [20, 21, 22]
    outer = np.linalg.norm(outward, axis=1) > 9
    assert (np.einsum("ij,ij->i", corners["normal"], outward)[outer] > 0).all()
    with pytest.raises(VolumeError, match=r"expected \.ply or \.stl"):
        write_surface(tmp_path / "a.obj", surface)


def test_a_gif_turns(tmp_path):
    mask, affine = _ball()
    shown = [
        (name, found.points, found.triangles, colour)
        for name, label, colour in (("ball", 3, (0.9, 0.2, 0.2)), ("core", 5, (0.2, 0.9, 0.2)))
        for found in [label_surface(mask, label, affine, step=2)]
    ]
    moved = shown[1][1] + np.float32([30, 0, 0])
    path = rotating_surface([shown[0], (*shown[1][:1], moved, *shown[1][2:])], tmp_path / "a.gif", frames=3, title="t")
    with Image.open(path) as gif:
        assert gif.n_frames == 3 and gif.info["loop"] == 0
        frames = []
        for number in range(3):
            gif.seek(number)
            frames.append(np.asarray(gif.convert("RGB")).astype(int))
    assert all((frame > 60).any() for frame in frames)
    assert np.abs(frames[0] - frames[1]).max() > 60
    with pytest.raises(ValueError, match="expected at least one of each"):
        rotating_surface([], tmp_path / "b.gif")
