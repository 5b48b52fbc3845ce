"""Parameters and FLOPs against the published figures, and the page that lists them against a new count."""

from pathlib import Path

import pytest
import torch

import mamba_vision
from mamba_vision.apis.complexity import complexity
from mamba_vision.apis.example_inputs import example_inputs, usual_size
from mamba_vision.apis.model_names import variants
from mamba_vision.apis.model_table import count, published, published_names, table_row
from mamba_vision.models.backbones import local_vim, local_vmamba, vim, vmamba

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "models.md"
# One of every kind of block, none of the largest; all are counted by `model_table.py --check`.
QUICK = ["vim_tiny", "vim_small_plus", "vmamba_tiny_s1l8", "vmamba_base_s2l15", "vmamba_vanilla_tiny",
         "localvmamba_tiny", "localvmamba_small", "localvim_tiny", "rsmamba_base", "umamba_bot_abdomen_ct",
         "umamba_enc_endoscopy", "zigma_zigzag8_b1_pe2", "segmamba_brats2023"]  # fmt: skip


def test_page_has_every_variant():
    rows = [
        line.split("|")[1].strip() for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    expected = [", ".join(f"`{name}`" for name in names) for names in published_names()]
    assert rows == expected, "run python tools/analysis_tools/model_table.py"


@pytest.mark.parametrize("name", QUICK)
def test_page_is_true(name):
    (names,) = (names for names in published_names() if name in names)
    assert table_row(names) in PAGE.read_text(encoding="utf-8"), "run python tools/analysis_tools/model_table.py"


@pytest.mark.parametrize("name", [name for name in QUICK if name.startswith(("vim", "vmamba", "localvmamba"))])
def test_flops_are_the_published_ones(name):
    _, cost = count(name)
    assert cost.flops == pytest.approx(published(variants()[name]).flops, rel=0.02)


@pytest.mark.parametrize(
    ("module", "family"), [(vim, "vim"), (vmamba, "vmamba"), (local_vim, "localvim"), (local_vmamba, "localvmamba")]
)
def test_page_has_the_published_parameters(module, family):
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for arch, parameters in module.PARAMETERS.items():
        name = f"`{family}_{arch.replace('+', '_plus')}`"
        (line,) = (line for line in lines if line.startswith("| `") and name in line.split("|")[1])
        assert line.split("|")[2].strip() == f"{parameters:,}"


@pytest.mark.parametrize(("name", "width", "figure"), [("localvim_tiny", 192, 1.5e9), ("localvim_small", 384, 4.8e9)])
def test_local_vim_by_its_own_formula(name, width, figure):
    """Convolution and projections once instead of four times; 5 operations a state and 2 more a channel for a scan."""
    _, cost = count(name)
    tokens, inner, rank, state, layers = 14 * 14, 2 * width, width // 16, 16, 20
    once = tokens * inner * (4 + (rank + 2 * state) + rank) * layers
    scan = tokens * inner * (5 * state + 2) * 4 * layers
    assert cost.multiply_adds - 3 * once + scan == pytest.approx(figure, rel=0.02)


def test_rsmamba_with_projections_of_its_own_for_each_path():
    """As the published code runs."""
    _, cost = count("rsmamba_base")
    width, layers, tokens = 192, 24, 784
    in_and_out = tokens * (width * 4 * width + 2 * width * width) * layers
    assert cost.flops + 2 * in_and_out == pytest.approx(17.0e9, rel=0.02)


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("zigma_zigzag8_b1_pe2", 97.5e9),
        ("zigma_3d_sweep2_b2", 431.7e9),
        ("segmamba_brats2023", 1479e9),
        ("umamba_bot_abdomen_ct", 789e9),
        ("mambair_lightsr_x2", 334.2e9),
        ("mambair_sr_x4", 1.6e12),
    ],
)
def test_networks(name, figure):
    assert count(name)[1].flops == pytest.approx(figure, rel=0.02)


def test_a_model_with_weights_is_left_as_it_is():
    model = mamba_vision.get_model("vim_test", num_classes=3).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    cost = complexity(model, torch.empty(1, 3, 64, 64))
    assert cost == complexity(model, torch.empty(1, 3, 64, 64, device="meta")) and cost.scan > 0
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert complexity(model, torch.empty(2, 3, 64, 64)).flops == 2 * cost.flops


def test_inputs():
    model = mamba_vision.get_model("zigma_tiny", num_classes=4)
    image, times, condition = example_inputs(model)
    assert image.shape == (1, 4, 8, 8) and times.shape == (1,) and condition.dtype == torch.int64
    assert usual_size(mamba_vision.get_model("umamba_bot_tiny")) == (128, 128, 128)
    with pytest.raises(ValueError, match=r"shape: found \(32,\), expected 2 numbers for ZigMa"):
        example_inputs(model, (32,))
    with pytest.raises(ValueError, match="ImageClassifier does not take inputs of shape"):
        complexity(mamba_vision.get_model("vim_test"), torch.empty(1, 3, 8, 8))
