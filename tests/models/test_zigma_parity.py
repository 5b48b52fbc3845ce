"""ZigMa against the published implementation: orders are in tests/scan_orders; here mixers, blocks, whole networks."""

import pytest
import torch
from recorded import recorded

from mamba_vision.checkpoints import load_published
from mamba_vision.models.layers.conditioning import TimeEmbedding, time_features
from mamba_vision.models.layers.modulated_block import ZigMaBlock
from mamba_vision.models.networks.zigma import ZigMa
from mamba_vision.models.networks.zigma_orders import layer_orders

RENAMED = {
    "img_dim": "img_size", "in_channels": "in_channels", "patch_size": "patch_size", "num_classes": "num_classes",
    "scan_type": "scan_type", "video_frames": "frames", "tpe": "time_positions", "norm_epsilon": "norm_eps",
    "ssm_cfg": "mixer", "drop_path_rate": "drop_path_rate",
}  # fmt: skip


def network_of(case) -> ZigMa:
    """The network that the case's published arguments describe, with its weights."""
    kw = dict(case.source["kwargs"])
    options = {"positions": ("none", "sine", "learned", "none")[kw.get("use_pe", 0)]}
    options |= {RENAMED[name]: value for name, value in kw.items() if name in RENAMED}
    options |= {"text_channels": kw["d_context"]} if kw.get("has_text") else {}
    options |= {"norm": "rms" if kw.get("rms_norm", True) else "ln"}
    model = ZigMa(dict(embed_dims=kw["embed_dim"], num_layers=kw["depth"]), **options).eval()
    load_published(model, case.state_dict())
    fixed = model.grid[0] * model.grid[1] * model.embed_dims if "pos_embed" in case.constant else 0
    assert sum(p.numel() for p in model.parameters()) + fixed == case.parameters
    return model


def gradients(case, model: torch.nn.Module, **outputs) -> dict[str, torch.Tensor]:
    if not case.gradients:
        return {}
    case.loss(**outputs).backward()
    parameters = dict(model.named_parameters())
    return {name: parameters[name].grad for name in case.gradients}


def test_time_embedding(golden):
    case = golden("zigma/time_embedder")
    model = TimeEmbedding(case.source["kwargs"]["hidden_size"])
    load_published(model, case.state_dict())
    times = case.inputs()["t"]
    outputs = {"output": model(times), "sinusoid": time_features(times)}
    case.check(gradients(case, model, **outputs), **outputs)


@pytest.mark.parametrize(
    ("name", "scan_type", "layer", "grid"),
    [
        ("mixer_zigzag", "zigzagN8", 5, (6, 6)),
        ("mixer_sweep_v1", "v1", 0, (4, 5)),
        ("mixer_sweep_v2", "v2", 0, (5, 6)),
        ("mixer_video_s", "zzvideo_sst", 3, (5, 4, 4)),
        ("mixer_video_t", "video_sst", 2, (5, 4, 4)),
    ],
)
def test_mixer(golden, name, scan_type, layer, grid):
    case = golden(f"zigma/{name}")
    options = {
        key: case.source["kwargs"][key] for key in ("d_state", "d_conv", "expand") if key in case.source["kwargs"]
    }
    order = layer_orders(scan_type, layer + 1)[layer]
    block = ZigMaBlock(24, order, options)
    load_published(block.mixer, case.state_dict())
    assert sum(p.numel() for p in block.mixer.parameters()) == case.parameters
    output = block.mix(case.inputs()["x"], order(grid))
    case.check(gradients(case, block.mixer, output=output), output=output)


@pytest.mark.parametrize("name", ["block", "block_text"])
def test_block(golden, name):
    case = golden(f"zigma/{name}")
    given, order = case.inputs(), layer_orders("zigzagN8", 4)[3]
    block = ZigMaBlock(24, order, text="text" in given).eval()
    load_published(block, case.state_dict())
    shared = (given["c"], order((5, 5)), given.get("text"))
    outputs = {}
    outputs["first_x"], outputs["first_residual"] = block(given["x"], None, *shared)
    outputs["x"], outputs["residual"] = block(given["x"], given["residual"], *shared)
    case.check(gradients(case, block, **outputs), **outputs)


def check_network(case) -> None:
    model, outputs, given = network_of(case), {}, case.inputs()
    for index, block in enumerate(model.blocks):

        def keep(module, inputs, out, index=index):
            outputs[f"block{index}_x"], outputs[f"block{index}_residual"] = out

        block.register_forward_hook(keep)
    condition = next((given[name] for name in ("y", "text") if name in given), None)
    with torch.set_grad_enabled(bool(case.gradients)):
        outputs["output"] = model(given["x"], given["t"], condition)
    outputs = {name: value for name, value in outputs.items() if name in case.outputs}
    assert set(outputs) == set(case.outputs)
    case.check(gradients(case, model, **outputs), **outputs)


@pytest.mark.parametrize("name", recorded("zigma", "ZigMa", without=("scan_", "sample_", "loss_")))
def test_network(golden, name):
    check_network(golden(f"zigma/{name}"))
