"""MambaIR, MambaIRUNet and MambaIRv2 against what the published code computed: outputs and gradients.

MambaIRv2 sorts pixels by class with a sort that is not stable, so in which order pixels of one class come depends on
the machine; it makes a difference of percents. The cases were recorded on a CPU with AVX-512: there, our networks sort
as the published code did and nothing is fed to them. Elsewhere the recorded orders (mambairv2_orders.npz) stand in for
the machine's own, checked to be sorted by the classes that our layers found.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from network_cases import grid_of, recorded_gradients
from recorded import recorded
from torch import Tensor, nn

from mamba_vision.checkpoints import load_published
from mamba_vision.models.layers.residual_state_space import ResidualStateSpaceBlock
from mamba_vision.models.layers.window_attention import relative_positions, shift_bias
from mamba_vision.models.mixers import semantic_scan
from mamba_vision.models.mixers.ss2d import SS2D
from mamba_vision.models.networks.mambair import MambaIR
from mamba_vision.models.networks.mambair_unet import MambaIRUNet
from mamba_vision.models.networks.mambairv2 import AttentiveLayer, MambaIRv2
from mamba_vision.scan_orders import orders_from_permutations

# Arguments of the published constructors that set nothing here: sizes that have no effect, options that are off.
_VOID = ("patch_size", "drop_rate", "use_checkpoint", "bias", "dual_pixel_task")
_ORDERS = Path(__file__).with_name("mambairv2_orders.npz")


@pytest.fixture
def device(request) -> str:
    """Where the networks run: `--device`."""
    return request.config.getoption("--device")


@pytest.fixture
def recorded_ties(monkeypatch):
    """A function: from now on, layers read pixels of one class in the order of the case's recording.

    Where the machine sorts as the recording one, it changes nothing.
    """

    def use(case_name: str, device: str) -> None:
        if device == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512":
            return
        with np.load(_ORDERS) as sorted_there:
            if case_name not in sorted_there:
                return
            orders = iter(torch.from_numpy(sorted_there[case_name].astype(np.int64)))

        def next_order(classes: Tensor, stable: bool):
            order = next(orders).to(classes.device)
            assert (classes.gather(1, order).diff(dim=1) >= 0).all(), "the layer found other classes"
            return orders_from_permutations(order.unsqueeze(1))

        monkeypatch.setattr(semantic_scan, "orders_from_scores", next_order)

    return use


def settings(case) -> dict:
    """Our settings from the published constructor's arguments."""
    kwargs = {key: value for key, value in case.source["kwargs"].items() if key not in _VOID}
    kwargs["in_channels"] = kwargs.pop("in_chans", 3)
    if not kwargs.setdefault("upsampler", ""):
        kwargs |= {"upsampler": "none", "upscale": 1}  # without an upsampler, the scale is not read
    return kwargs


def ffn_of(case) -> str:
    """The light network's classes have the names of the other's: only their file tells."""
    return "gated" if "light" in (case.source["class"] + case.source.get("file", "")).lower() else "conv"


def checked(model: nn.Module, case, device: str, **run_options) -> None:
    """Load, run and compare everything that the case recorded."""
    load_published(model, {"params": case.state_dict()})
    assert sum(p.numel() for p in model.parameters()) == case.parameters
    kept: dict[str, Tensor] = {}
    for number, group in enumerate(getattr(model, "layers", ())):
        group.register_forward_hook(lambda _, __, y, n=number: kept.update({f"group.{n}": y.mean((1, 2))}))
    for name in case.outputs:
        if isinstance(blocks := getattr(model, name, None), nn.ModuleList):
            blocks[-1].register_forward_hook(lambda _, __, y, name=name: kept.update({name: y.mean((1, 2))}))
    with torch.set_grad_enabled(bool(case.gradients)):
        kept["output"] = model.eval().to(device)(case.inputs()["x"].to(device), **run_options)
        outputs = {name: kept[name] for name in case.outputs}
        if case.gradients:
            case.loss(**outputs).backward()
    case.check(recorded_gradients(model, case), **outputs)


@pytest.mark.parametrize("name", recorded("mambair", "SS2D"))
def test_ss2d(golden, device: str, name: str) -> None:
    case = golden(f"mambair/{name}")
    kwargs = {"expand": 2.0, **case.source["kwargs"]}
    same = {key: kwargs[key] for key in ("d_state", "d_conv", "dt_rank", "conv_bias") if key in kwargs}
    mixer = SS2D(kwargs["d_model"], ssm_ratio=kwargs["expand"], **same).eval()
    load_published(mixer, case.state_dict())
    output = mixer.to(device)(case.inputs()["x"].to(device))
    case.loss(output=output).backward()
    case.check({name: mixer.get_parameter(name).grad for name in case.gradients}, output=output)


@pytest.mark.parametrize("name", recorded("mambair", "VSSBlock"))
def test_block(golden, device: str, name: str) -> None:
    case = golden(f"mambair/{name}")
    kwargs = {"d_state": 16, "expand": 2.0, **case.source["kwargs"]}
    branch = "light" if kwargs.get("is_light_sr") else "classic"
    block = ResidualStateSpaceBlock(kwargs["hidden_dim"], kwargs["d_state"], kwargs["expand"], branch).eval()
    load_published(block, case.state_dict())
    output = block.to(device)(case.inputs()["x"].to(device).unflatten(1, grid_of(case))).flatten(1, 2)
    case.loss(output=output).backward()
    case.check({name: block.get_parameter(name).grad for name in case.gradients}, output=output)


@pytest.mark.parametrize("name", recorded("mambair", "MambaIR"))
def test_mambair(golden, device: str, name: str) -> None:
    case = golden(f"mambair/{name}")
    checked(MambaIR(settings(case)), case, device)


@pytest.mark.parametrize("name", recorded("mambair", "MambaIRUNet"))
def test_unet(golden, device: str, name: str) -> None:
    case = golden(f"mambair/{name}")
    kwargs = case.source["kwargs"]
    same = ("dim", "num_blocks", "num_refinement_blocks", "mlp_ratio")
    wanted = {key: kwargs[key] for key in same if key in kwargs}
    checked(MambaIRUNet("realdn", **{"mlp_ratio": 2.0, **wanted}, in_channels=kwargs["inp_channels"]), case, device)


@pytest.mark.parametrize("name", recorded("mambair", "AttentiveLayer"))
def test_attentive_layer(golden, device: str, recorded_ties, name: str) -> None:
    case = golden(f"mambair/{name}")
    recorded_ties(name, device)
    kwargs, grid = {"qkv_bias": True, **case.source["kwargs"]}, grid_of(case)
    window = kwargs["window_size"]
    same = ("num_heads", "window_size", "d_state", "mlp_ratio", "inner_rank", "num_tokens", "convffn_kernel_size",
            "qkv_bias")  # fmt: skip
    layer = AttentiveLayer(
        kwargs["dim"], shifted=bool(kwargs["shift_size"]), ffn=ffn_of(case), **{key: kwargs[key] for key in same}
    ).eval()
    load_published(layer, case.state_dict())
    layer, inputs = layer.to(device), {key: value.to(device) for key, value in case.inputs().items()}
    x, positions = inputs["x"].unflatten(1, grid), relative_positions(window).to(device)
    shifts = shift_bias(grid, window, window // 2, x.device)
    output = layer(x, positions, shifts, inputs.get("noise.0")).flatten(1, 2)
    case.loss(output=output).backward()
    case.check({name: layer.get_parameter(name).grad for name in case.gradients}, output=output)


@pytest.mark.parametrize("name", recorded("mambair", "MambaIRv2", "MambaIRv2Light"))
def test_mambairv2(golden, device: str, recorded_ties, name: str) -> None:
    case = golden(f"mambair/{name}")
    recorded_ties(name, device)
    inputs = case.inputs()
    noise = [inputs[f"noise.{k}"].to(device) for k in range(len(inputs) - 1)] or None
    checked(MambaIRv2(settings(case), ffn=ffn_of(case)), case, device, noise=noise)
