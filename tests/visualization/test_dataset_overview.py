import numpy as np

from mamba_vision.visualization.dataset_overview import dataset_overview_figure


def test_all_cases_are_in_it_and_the_odd_ones_have_names(tmp_path):
    random = np.random.default_rng(0)
    spacings, shapes = np.ones((4, 3)), random.integers(20, 40, (4, 3))
    spacings[2, 2] = 7
    figure = dataset_overview_figure(
        ["a", "b", "odd one", "d"], spacings, shapes, {"liver": [1000, 1200, 0, 900], "tumour": [0, 3, 0, 1]},
        [random.normal(size=500) for _ in range(4)], odd=[2], path=tmp_path / "dataset.png",
    )  # fmt: skip
    sizes, _, volumes, values = figure.axes
    assert [text.get_text() for text in sizes.texts] == ["odd one"]
    assert [label.get_text() for label in volumes.get_xticklabels()] == ["liver", "tumour"]
    assert len(values.lines) == 4 and (tmp_path / "dataset.png").stat().st_size > 1000


def test_equal_intensities_make_no_trouble():
    dataset_overview_figure(["a"], np.ones((1, 3)), np.full((1, 3), 9), {"x": [1.0]}, [np.zeros(10)])


def test_volumes_that_lie_close_together_have_numbers_beside_them():
    one = (np.ones((2, 3)), np.full((2, 3), 9))
    figure = dataset_overview_figure(["a", "b"], *one, {"x": [0.5, 0.6]}, [np.zeros(10)] * 2)
    ticks = figure.axes[2].get_yticks()
    low, high = figure.axes[2].get_ylim()
    assert sum(low <= tick <= high for tick in ticks) >= 2
