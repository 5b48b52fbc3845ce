"""MambaIR, MambaIRUNet, MambaIRv2: variants, sizes, options, checkpoints, export, errors."""

import pytest
import torch
from torch import nn

from mamba_vision.checkpoints import CheckpointError, load_published, published_names, rename
from mamba_vision.models.layers.mirror_padding import mirror_to
from mamba_vision.models.networks import mambair, mambair_unet, mambairv2
from mamba_vision.models.networks.mambair import MambaIR
from mamba_vision.models.networks.mambair_unet import MambaIRUNet
from mamba_vision.models.networks.mambairv2 import MambaIRv2
from mamba_vision.registry import MODELS

NETWORKS = {MambaIR: mambair, MambaIRUNet: mambair_unet, MambaIRv2: mambairv2}
TINY = [(network, "tiny") for network in NETWORKS] + [(MambaIR, "tiny_denoise"), (MambaIRv2, "tiny_denoise")]


@pytest.mark.parametrize("network", NETWORKS)
def test_published_sizes(network: type) -> None:
    module = NETWORKS[network]
    assert set(module.PARAMETERS) <= set(module.ARCHS)
    with torch.device("meta"):
        for arch, parameters in module.PARAMETERS.items():
            assert sum(p.numel() for p in network(arch).parameters()) == parameters, arch


def test_other_variants_build() -> None:
    with torch.device("meta"):
        for network, module in NETWORKS.items():
            for arch in set(module.ARCHS) - set(module.PARAMETERS):
                assert network(arch).in_channels == (1 if "gray" in arch else 3)


@pytest.mark.parametrize(("network", "arch"), TINY)
@pytest.mark.parametrize("size", [(1, 1), (9, 17), (16, 24)])
def test_any_image_size(network: type, arch: str, size: tuple[int, int]) -> None:
    model = network(arch).eval()
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        y = model(x)
        assert y.shape == (2, 3, *(side * model.upscale for side in size)) and y.isfinite().all()
        assert torch.equal(y, model(x)), "evaluation repeats"
        torch.testing.assert_close(y[1:], model(x[1:]), rtol=1e-4, atol=1e-5)


def test_mirror_padding_is_what_numpy_calls_it() -> None:
    import numpy as np

    x = torch.rand(1, 2, 3, 5)
    for repeat_edge, mode in ((True, "symmetric"), (False, "reflect")):
        want = np.pad(x.numpy(), ((0, 0), (0, 0), (0, 9), (0, 1)), mode=mode)
        assert np.array_equal(mirror_to(x, (12, 6), repeat_edge), want)
    assert torch.equal(mirror_to(x[..., :1], (3, 4), False), x[..., :1].expand(-1, -1, -1, 4))


def test_route_noise() -> None:
    x = torch.rand(1, 3, 8, 8)
    torch.manual_seed(0)
    model = MambaIRv2("tiny")
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    with torch.no_grad():
        assert not torch.equal(model(x), model(x))  # training
        assert torch.equal(model.eval()(x), model(x))
        for group in model.layers:
            for layer in group.blocks:
                layer.assm.route_noise = "always"
        assert not torch.equal(model(x), model(x))
    noise = [torch.randn(1, 64, 8) for _ in range(model.n_layers)]
    with torch.no_grad():
        assert torch.equal(model(x, noise=noise), model.train()(x, noise=noise))
    model(x).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_scan_inputs_are_what_is_scanned() -> None:
    """The recurrence over them, written out, gives what the layer computes."""
    scan = MambaIRv2("tiny").eval().layers[0].blocks[0].assm
    for p in scan.parameters():
        nn.init.normal_(p, std=0.3)
    x, table = torch.rand(2, 5, 6, 24), torch.randn(8, 4)
    with torch.no_grad():
        given, want = scan.scan_inputs(x, table), scan(x, table)
        state, y = torch.zeros(2, 24, 4), torch.zeros(2, 30, 24)
        for step in range(30):
            delta, u = given.delta[:, 0, :, step, None], given.u[:, 0, :, step]
            state = (delta * given.A[0]).exp() * state + delta * u[..., None] * given.B[:, 0, None, :, step]
            read = (state * given.C[:, 0, None, :, step]).sum(-1) + given.D[0] * u
            y[torch.arange(2), given.order[:, 0, step]] = read
        got = scan.out_proj(scan.out_norm(y)).view(x.shape)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("network", "arch"), TINY[:3])
def test_gradient_checkpointing(network: type, arch: str) -> None:
    plain, saving = network(arch).eval(), network(arch, with_cp=True).eval()
    saving.load_state_dict(plain.state_dict())
    x, gradients = torch.rand(1, 3, 8, 8), []
    for model in (plain, saving):
        model(x).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("network", "arch"), TINY[:3])
def test_mixed_precision(network: type, arch: str, dtype: torch.dtype) -> None:
    model = network(arch)
    with torch.autocast("cpu", dtype=dtype):
        y = model(torch.rand(1, 3, 16, 16))
    y.float().mean().backward()
    assert y.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("network", "arch"), TINY[:3])
@pytest.mark.parametrize("wrapper", ["params", "params_ema"])
def test_published_files(network: type, arch: str, wrapper: str, tmp_path) -> None:
    source = network(arch)
    state = {theirs: source.state_dict()[ours] for ours, theirs in published_names(source).items()}
    if network is MambaIRv2:
        assert "layers.0.residual_group.layers.1.assm.selectiveScan.A_logs" in state
        state["relative_position_index_SA"] = torch.zeros(64, 64, dtype=torch.long)
    if network is MambaIR:
        assert "layers.1.residual_group.blocks.0.self_attention.A_logs" in state and "upsample.0.weight" in state
    torch.save({wrapper: state}, tmp_path / "net.pth")
    model = MODELS.build(dict(type=f"mamba_vision.{network.__name__}", arch=arch))
    load_published(model, tmp_path / "net.pth", ema=wrapper == "params_ema")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values()))


def test_names_translate_back(golden) -> None:
    state = golden("mambair/v2_realsr_x4_small").state_dict()
    ours = rename(state, MambaIRv2.published_renames)
    assert set(rename(ours, MambaIRv2.published_renames, backwards=True)) == set(state)


def test_old_light_weights_are_recognized() -> None:
    """Light checkpoints of before October 2024 have another convolution branch and 16 states."""
    model = MambaIR("lightsr_x2", depths=(1,))
    state = {theirs: model.state_dict()[ours] for ours, theirs in published_names(model).items()}
    block = "layers.0.residual_group.blocks.0."
    old = {name: value for name, value in state.items() if ".cab." not in name}
    old[block + "conv_blk.cab.0.weight"] = torch.zeros(60, 1, 3, 3)
    old[block + "conv_blk.cab.1.attention.1.weight"] = torch.zeros(2, 60, 1, 1)
    old[block + "self_attention.A_logs"] = torch.zeros(288, 16)
    with pytest.raises(CheckpointError, match="light weights of before 15 October 2024"):
        load_published(model, {"params": old})


def test_real_weights_in_v2_say_which_network_they_need() -> None:
    state = {theirs: torch.zeros(1) for theirs in published_names(MambaIR("tiny")).values()}
    with pytest.raises(CheckpointError, match="weights of MambaIR"):
        load_published(MambaIRv2("tiny"), {"params": state})


@pytest.mark.parametrize("network", NETWORKS)
def test_export_with_dynamic_sizes(network: type) -> None:
    # Exported graphs sort stably.
    model = network("tiny", **(dict(stable_sort=True) if network is MambaIRv2 else {})).eval()
    dims = {"x": {0: torch.export.Dim.AUTO, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}}
    exported = torch.export.export(model, (torch.rand(2, 3, 20, 28),), dynamic_shapes=dims, strict=False).module()
    for x in (torch.rand(2, 3, 13, 31), torch.rand(2, 3, 32, 16)):
        with torch.no_grad():
            torch.testing.assert_close(exported(x), model(x), rtol=1e-4, atol=1e-5)


def test_learned_positions_and_options_of_the_attention() -> None:
    for network in (MambaIR, MambaIRv2):
        model = network("tiny", ape=True, img_size=(16, 8)).eval()
        plain = network("tiny").eval()
        plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "absolute_pos_embed"})
        x = torch.rand(1, 3, 16, 8)
        assert not torch.allclose(model(x), plain(x))
        torch.nn.init.zeros_(model.absolute_pos_embed)
        torch.testing.assert_close(model(x), plain(x))
        with pytest.raises(ValueError, match=r"x: found \(8, 16\) pixels, expected \(16, 8\)"):
            model(x.transpose(2, 3))
        names = published_names(network("tiny", patch_norm=False)).values()
        assert not any(name.startswith("patch_embed") for name in names)
    model = MambaIRv2("tiny", qkv_bias=False, num_heads=[2, 4], convffn_kernel_size=7)
    assert [group.blocks[0].win_mhsa.heads for group in model.layers] == [2, 4]
    assert model.layers[0].blocks[0].wqkv.bias is None
    assert model.layers[0].blocks[0].convffn1.sg.conv.kernel_size == (5, 5)  # as published, whatever is asked for
    assert model(x).isfinite().all()
    with pytest.raises(ValueError, match="num_heads: expected a number or 2, one a group"):
        MambaIRv2("tiny", num_heads=[2])


def test_errors() -> None:
    with pytest.raises(ValueError, match="unknown arch 'sr_x5'"):
        MambaIR("sr_x5")
    with pytest.raises(ValueError, match=r"upscale: upsampler 'none' has \(1,\), found 2"):
        MambaIR("tiny_denoise", upscale=2)
    with pytest.raises(ValueError, match="upsampler: found 'nearest'"):
        MambaIR("tiny", upsampler="nearest")
    with pytest.raises(ValueError, match="at least 30, found 24"):
        MambaIR("tiny", embed_dim=24)
    with pytest.raises(ValueError, match="num_heads: expected a divisor of 24"):
        MambaIRv2("tiny", num_heads=5)
    with pytest.raises(ValueError, match="convffn_kernel_size: expected an odd"):
        MambaIRv2("tiny", convffn_kernel_size=4)
    with pytest.raises(ValueError, match="route_noise: found 'off'"):
        MambaIRv2("tiny", route_noise="off")
    with pytest.raises(ValueError, match="num_blocks: expected four"):
        MambaIRUNet("tiny", num_blocks=(1, 1))
    for model in (MambaIR("tiny"), MambaIRv2("tiny"), MambaIRUNet("tiny")):
        with pytest.raises(ValueError, match=r"x: found shape \(1, 1, 8, 8\), expected \(batch, 3, height, width\)"):
            model(torch.rand(1, 1, 8, 8))
