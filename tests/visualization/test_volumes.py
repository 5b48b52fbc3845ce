"""Pictures of scans: right plane, right way round, right proportions, and files whole or absent."""

import numpy as np
import pytest
from matplotlib.image import imread

from mamba_vision.visualization.volumes import label_colour, orthogonal_slices_figure

BLUE = np.asarray(label_colour(2))


@pytest.fixture
def scan() -> tuple[np.ndarray, np.ndarray]:
    """A dim block with label 2 in its right, front, upper corner (RAS: high x, y and z)."""
    image = np.full((20, 30, 10), 100.0)
    labels = np.zeros(image.shape, np.uint8)
    labels[15:18, 24:28, 7:9] = 2
    return image, labels


def _blue_centre(axes) -> tuple[float, float]:
    """Where the label's fill lies in a panel, as fractions from the left and from the bottom as displayed."""
    overlay = axes.images[1].get_array()
    rows, columns = np.nonzero(overlay[..., 3])
    assert np.allclose(overlay[rows[0], columns[0], :3], BLUE, atol=1e-6)
    x, y = (columns.mean() + 0.5) / overlay.shape[1], (rows.mean() + 0.5) / overlay.shape[0]
    return (1 - x if axes.xaxis_inverted() else x), (1 - y if axes.yaxis_inverted() else y)


def test_views_are_radiological(scan):
    image, labels = scan
    axial, coronal, sagittal = orthogonal_slices_figure(image, labels).axes
    for axes in (axial, coronal):
        x, y = _blue_centre(axes)
        assert x < 0.3 and y > 0.7  # the patient's right is at the left, front and head are up
    x, y = _blue_centre(sagittal)
    assert x < 0.3 and y > 0.7  # front at the left, head up


def test_an_affine_turns_the_arrays_to_the_same_picture(scan):
    image, labels = scan
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    turned = [array[::-1].transpose(2, 0, 1) for array in (image, labels)]  # axes: z, reversed x, y
    turned_affine = np.array([[0, -1, 0, 19], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
    plain = orthogonal_slices_figure(image, labels, affine=affine)
    other = orthogonal_slices_figure(*turned, affine=turned_affine)
    for one, two in zip(plain.axes, other.axes):
        np.testing.assert_array_equal(one.images[1].get_array(), two.images[1].get_array())


def test_proportions_follow_the_spacing(scan):
    image, labels = scan
    axial, coronal, sagittal = orthogonal_slices_figure(image, labels, spacing=(0.5, 1.0, 4.0)).axes
    for axes, width, height in ((axial, 10, 30), (coronal, 10, 40), (sagittal, 30, 40)):
        assert sorted(axes.get_xlim()) == [0, width]
        assert axes.get_ylim() == (0, height)
        assert axes.get_aspect() == 1


def test_slices_go_through_a_label_though_its_centre_of_mass_is_outside():
    image = np.zeros((21, 21, 21))
    labels = np.zeros(image.shape, np.int16)
    labels[2:5, 10, 10] = labels[16:19, 10, 10] = 1  # two organs, as kidneys
    sagittal = orthogonal_slices_figure(image, labels).axes[2]
    assert sagittal.images[1].get_array()[..., 3].any()


def test_legend_gives_names_and_volumes_in_ml(scan):
    image, labels = scan
    truth = np.zeros_like(labels)
    truth[15:18, 24:28, 6:9] = 2
    figure = orthogonal_slices_figure(image, labels, (10, 10, 10), {"liver": 2, "background": 0}, truth)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[0] == "liver  24 ml  (truth 36 ml)"
    for names in ({2: "liver"}, ["background", "spleen", "liver"]):
        texts = orthogonal_slices_figure(image, labels, names=names).legends[0].get_texts()
        assert texts[0].get_text() == "liver  0.024 ml"


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_constant_and_nan_images_are_drawn(value, tmp_path):
    orthogonal_slices_figure(np.full((4, 5, 6), value), path=tmp_path / "p.png")
    assert imread(tmp_path / "p.png").ndim == 3


def test_many_labels_one_thick_slice_and_outside_marks(tmp_path):
    labels = np.arange(-1, 39, dtype=np.int16).reshape(5, 8, 1)
    figure = orthogonal_slices_figure(np.zeros(labels.shape), labels, (1, 1, 5), path=tmp_path / "p.png", title="t")
    assert len({label_colour(label) for label in range(1, 39)}) == 38
    assert figure.legends[0].get_texts()[-1].get_text() == "and 20 more"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_XYZ": np.zeros((4, 4))}, r"image_XYZ: expected a 3-D array, found shape \(4, 4\)"),
        (
            {"image_XYZ": np.zeros((4, 4, 4)), "labels_XYZ": np.zeros((4, 4, 5))},
            r"labels_XYZ: .*\(4, 4, 4\).*\(4, 4, 5\)",
        ),
        ({"image_XYZ": np.zeros((4, 4, 4)), "spacing": (1, 0, 1)}, "spacing: expected three positive"),
        ({"image_XYZ": np.zeros((4, 4, 4)), "affine": np.eye(3)}, "affine: expected shape"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        orthogonal_slices_figure(**arguments)


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch, scan):
    path = tmp_path / "p.png"
    path.write_bytes(b"old")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        orthogonal_slices_figure(*scan, path=path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["p.png"]
