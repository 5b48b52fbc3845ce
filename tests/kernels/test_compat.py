"""The published packages' names on our ops: a whole script, each function against its parts, installing and leaving."""

import copy
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from oracle import relative_error, scan_inputs

from mamba_vision.kernels import compat, published_cuda, published_ops, selective_scan
from mamba_vision.models.mixers import Mamba

pytestmark = pytest.mark.any_device
SCRIPT = Path(__file__).with_name("published_script.py")


@pytest.fixture
def installed():
    compat.install()
    yield
    compat.uninstall()


def test_an_unmodified_script_runs():
    code = f"import runpy; from mamba_vision.kernels import compat; compat.install(); runpy.run_path({str(SCRIPT)!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "losses fell" in run.stdout.splitlines()[-1]
    # nothing that the libraries behind us say while they are imported
    assert "OneDL" not in run.stdout and "MultiScaleDeformableAttention" not in run.stderr


def test_the_script_needs_install():
    code = f"import runpy; import mamba_vision.kernels.compat; runpy.run_path({str(SCRIPT)!r})"
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert "ModuleNotFoundError" in run.stderr


def test_install_and_uninstall(installed):
    import mamba_ssm
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    assert issubclass(mamba_ssm.Mamba, Mamba) and selective_scan_fn is published_ops.selective_scan_fn
    assert importlib.util.find_spec("mamba_ssm.ops.triton.layer_norm") is not None
    compat.install()  # again
    with pytest.raises(ImportError, match="Mamba3"):
        from mamba_ssm import Mamba3  # noqa: F401
    compat.uninstall()
    assert "mamba_ssm" not in sys.modules and "selective_scan_cuda_oflex" not in sys.modules
    assert importlib.util.find_spec("mamba_ssm") is None
    compat.uninstall()  # again


def test_refuses_beside_the_real_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "causal_conv1d", ModuleType("causal_conv1d"))
    with pytest.raises(
        RuntimeError, match=r"causal_conv1d already imported in this process: call .*install\(\) before"
    ):
        compat.install()
    assert "mamba_ssm" not in sys.modules


def gradients(y, leaves, weight):
    return torch.autograd.grad((y * weight).sum(), leaves)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("length", [30, 4100])
def test_mamba_pair_equals_the_op(gated, length):
    inputs = {k: v.float() for k, v in scan_inputs(length=length, z=gated, initial=False).items() if v is not None}
    leaves = {k: v.requires_grad_() for k, v in inputs.items()}
    want, last = selective_scan(**leaves, delta_softplus=True, return_last_state=True)
    weight = torch.randn_like(want)
    wanted = dict(zip(leaves, gradients(want, list(leaves.values()), weight)))
    order = ("u", "delta", "A", "B", "C", "D")
    arguments = [inputs[k].detach() for k in order] + [inputs["z"].detach() if gated else None]
    arguments.append(inputs["delta_bias"].detach())
    out, x, *rest = published_cuda.mamba_fwd(*arguments, True)
    assert relative_error(rest[0] if gated else out, want) < 1e-5
    assert x.shape == (2, 6, -(-length // 2048), 8)
    assert relative_error(x[:, :, -1, 1::2], last) < 1e-5
    dz = torch.empty_like(want) if gated else None
    (*found,) = published_cuda.mamba_bwd(*arguments, weight, x, out, dz, True, True)
    names = [*order, "delta_bias", "z"] if gated else [*order, "delta_bias"]
    for name, got in zip(names, found):
        assert relative_error(got, wanted[name]) < 1e-4, name
    if gated:
        assert found[7] is dz
        assert relative_error(found[8], want) < 1e-5
    else:
        assert len(found) == 7


def test_core_and_oflex_pairs():
    inputs = {k: v for k, v in scan_inputs(z=False, initial=False).items() if v is not None}
    u, delta, A, B, C, D = (inputs[k].float() for k in ("u", "delta", "A", "B", "C", "D"))
    bias = inputs["delta_bias"].float()
    half = [t.bfloat16() for t in (u, delta)]
    want = selective_scan(*half, A, B, C, D, delta_bias=bias, delta_softplus=True, out_dtype=torch.float32)
    out, x = published_cuda.oflex_fwd(*half, A, B, C, D, bias, True, 1, True)
    assert out.dtype == torch.float32 and torch.equal(out, want)
    out, x = published_cuda.core_fwd(*half, A, B, C, D, bias, True, 1)
    assert out.dtype == torch.bfloat16 and torch.equal(out, want.bfloat16())
    # one row of delta for two channels
    shared, shared_bias = delta[:, ::2], bias[::2]
    out, x = published_cuda.oflex_fwd(u, shared, A, B, C, D, shared_bias, True, 1, True)
    wide = shared.repeat_interleave(2, dim=1), shared_bias.repeat_interleave(2)
    assert torch.equal(out, selective_scan(u, wide[0], A, B, C, D, delta_bias=wide[1], delta_softplus=True))
    found = published_cuda.oflex_bwd(u, shared, A, B, C, D, shared_bias, torch.ones_like(out), x, True, 1)
    assert [g.shape for g in found] == [t.shape for t in (u, shared, A, B, C, D, shared_bias)]
    assert published_cuda.core_bwd(u, delta, A, B, C, None, None, torch.ones_like(u), x, True, 1)[5:] == [None, None]


def test_inner_functions_equal_the_layer():
    layer = Mamba(10, d_state=4, bias=True)
    x = torch.randn(2, 17, 10)
    xz = layer.in_proj(x).transpose(1, 2)
    weights = (xz, layer.conv1d.weight, layer.conv1d.bias, layer.x_proj.weight, layer.dt_proj.weight)
    scan = {"D": layer.D, "delta_bias": layer.dt_proj.bias.float(), "delta_softplus": True}
    A = -torch.exp(layer.A_log.float())
    out = published_ops.mamba_inner_fn(*weights, layer.out_proj.weight, layer.out_proj.bias, A, None, None, **scan)
    torch.testing.assert_close(out, layer(x))
    y = published_ops.mamba_inner_fn_no_out_proj(*weights, A, None, None, **scan)
    torch.testing.assert_close(layer.out_proj(y.transpose(1, 2)), layer(x))
    # both directions with the same rates: on a sequence of one step they are the same
    one = (xz[..., :1], *weights[1:])
    both = published_ops.bimamba_inner_fn(*one, layer.out_proj.weight, None, A, A, None, None, **scan)
    torch.testing.assert_close(both, 2 * (layer(x[:, :1]) - layer.out_proj.bias))


def test_bidirectional_inner_function_has_the_gate_gradient():
    xz = torch.randn(1, 8, 6, dtype=torch.float64, requires_grad=True)
    double = {"dtype": torch.float64}
    conv, x_proj = torch.randn(4, 1, 3, **double), torch.randn(2 + 6, 4, **double)
    dt_proj, out_proj = torch.randn(4, 2, **double), torch.randn(5, 4, **double)
    A, A_b = -torch.rand(4, 3, **double), -torch.rand(4, 3, **double)
    bias = torch.randn(3, **double)

    def op(xz):
        return published_ops.bimamba_inner_fn(
            xz, conv, None, x_proj, dt_proj, out_proj, None, A, A_b, B_proj_bias=bias, C_proj_bias=bias
        )

    torch.autograd.gradcheck(op, xz, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms(dtype):
    x, residual = torch.randn(3, 5, 8, dtype=dtype), torch.randn(3, 5, 8)
    weight, bias = torch.randn(8), torch.randn(8)
    y, carried = published_ops.layer_norm_fn(x, weight, bias, residual, eps=1e-5, prenorm=True)
    total = x.float() + residual
    assert y.dtype == dtype and carried.dtype == torch.float32
    torch.testing.assert_close(carried, total)
    torch.testing.assert_close(y, F.layer_norm(total, (8,), weight, bias, 1e-5).to(dtype))
    norm = published_ops.RMSNorm(8)
    assert [name for name, _ in norm.named_parameters()] == ["weight"] and norm.bias is None
    torch.testing.assert_close(norm(x), F.rms_norm(x.float(), (8,), norm.weight, 1e-5).to(dtype))
    _, carried = norm(x, prenorm=True, residual_in_fp32=True)
    assert carried.dtype == torch.float32
    _, carried = norm(x, prenorm=True)
    assert carried.dtype == dtype


def test_old_argument_order_of_the_convolution():
    x, weight, bias = torch.randn(2, 3, 9), torch.randn(3, 4), torch.randn(3)
    want = published_ops.causal_conv1d_fn(x, weight, bias, activation="silu")
    assert torch.equal(published_ops.causal_conv1d_fn(x, weight, bias, "silu"), want)
    kept = torch.empty(2, 3, 3)
    out, states = published_ops.causal_conv1d_fn(
        x, weight, bias, activation="silu", return_final_states=True, final_states_out=kept
    )
    assert states is kept and torch.equal(kept, x[..., -3:]) and torch.equal(out, want)


def test_layers_of_the_forks(installed, golden):
    """Vim's and SegMamba's packages replace mamba_ssm by their own of the same name."""
    from mamba_ssm import Mamba as Forked

    for name, bimamba_type in (("vim/mixer_v1", "v1"), ("vim/mixer_v2", "v2"), ("segmamba/mamba_v3", "v3")):
        case = golden(name)
        kwargs = case.source["kwargs"]
        layer = Forked(**{**kwargs, "bimamba_type": bimamba_type})
        layer.load_state_dict(case.state_dict())
        case.check(**{next(iter(case.outputs)): layer(next(iter(case.inputs().values())), inference_params=None)})
    with pytest.raises(ValueError, match="decodes nothing"):
        layer(torch.zeros(1, 48, 8), inference_params=object())
    with pytest.raises(ValueError, match="bimamba_type: found 'v9'"):
        Forked(8, bimamba_type="v9")
    plain = Forked(8, bimamba_type="none", if_divide_out=True, d_state=4)
    assert type(copy.deepcopy(plain)) is Forked and plain(torch.zeros(1, 3, 8)).shape == (1, 3, 8)


def test_what_vision_models_import_beside_the_layers(installed):
    """Vim's model file has these at its top, and uses none of them."""
    from mamba_ssm.utils.generation import GenerationMixin
    from mamba_ssm.utils.hf import load_config_hf, load_state_dict_hf

    for call in (GenerationMixin().generate, lambda: load_config_hf("a"), lambda: load_state_dict_hf("a")):
        with pytest.raises(NotImplementedError, match="install mamba_ssm itself"):
            call()


def test_steps_of_chosen_states(installed):
    """Each row of a batch may continue another one of many states."""
    from causal_conv1d import causal_conv1d_update
    from mamba_ssm.ops.triton.selective_state_update import selective_state_update

    states, rows, x = torch.randn(5, 3, 4), torch.tensor([4, 1], dtype=torch.int32), torch.randn(2, 3)
    inputs = (x, torch.rand(2, 3), -torch.rand(3, 4), torch.randn(2, 4), torch.randn(2, 4))
    for step, option in (
        (lambda s, **k: causal_conv1d_update(x, s, torch.ones(3, 4), **k), "conv_state_indices"),
        (lambda s, **k: selective_state_update(s, *inputs, **k), "state_batch_indices"),
    ):
        given = states.clone()
        alone, want = states[rows.long()].clone(), states.clone()
        out = step(alone)
        want[rows.long()] = alone
        torch.testing.assert_close(step(given, **{option: rows}), out)
        assert torch.equal(given, want)


def test_blocks_of_both_versions(installed):
    from mamba_ssm.modules.block import Block
    from mamba_ssm.modules.mamba_simple import Block as OldBlock
    from mamba_ssm.modules.mlp import GatedMLP
    from mamba_ssm.ops.triton.layer_norm import RMSNorm

    x, residual = torch.randn(2, 5, 8), torch.randn(2, 5, 8)

    def mixer(dim):
        return Mamba(dim, d_state=2)

    for norm in (torch.nn.LayerNorm, RMSNorm):
        for fused in (False, True):
            block = Block(8, mixer, GatedMLP, norm_cls=norm, fused_add_norm=fused, residual_in_fp32=True)
            got, carried = block(x, residual)
            total = x + residual
            mixed = block.mixer(block.norm(total))
            torch.testing.assert_close(carried, total + mixed)
            torch.testing.assert_close(got, block.mlp(block.norm2(total + mixed)))
    assert block.mlp.fc1.weight.shape == (256, 8) and block(x)[1].shape == x.shape
    old = OldBlock(8, mixer, RMSNorm)
    got, carried = old(x)
    assert torch.equal(carried, x)
    torch.testing.assert_close(got, old.mixer(old.norm(x)))


def test_mamba2_functions_equal_the_layer(installed):
    from mamba_ssm import Mamba2
    from mamba_ssm.modules.mamba2_simple import Mamba2Simple
    from mamba_ssm.ops.triton.layernorm_gated import LayerNorm, RMSNorm
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined, mamba_split_conv1d_scan_combined

    assert Mamba2Simple is not Mamba2
    for options in (dict(ngroups=2, D_has_hdim=True), dict(rmsnorm=False, d_ssm=8, dt_limit=(0.01, 0.05), bias=True)):
        layer = Mamba2(8, d_state=4, headdim=4, chunk_size=4, **options)
        x = torch.randn(2, 9, 8)
        got = mamba_split_conv1d_scan_combined(
            layer.in_proj(x), layer.conv1d.weight.squeeze(1), layer.conv1d.bias, layer.dt_bias, -layer.A_log.exp(),
            layer.D, layer.chunk_size, dt_limit=layer.dt_limit,
            rmsnorm_weight=layer.norm.weight if layer.rmsnorm else None, rmsnorm_eps=1e-5,
            outproj_weight=layer.out_proj.weight, outproj_bias=layer.out_proj.bias, headdim=4, ngroups=layer.ngroups,
            norm_before_gate=False,
        )  # fmt: skip
        torch.testing.assert_close(got, layer(x))
    x, dt, B = torch.randn(1, 9, 2, 4), torch.randn(1, 9, 2), torch.randn(1, 9, 1, 3)
    seq_idx, edges = torch.tensor([[0] * 4 + [1] * 5]), torch.tensor([0, 4, 9])
    y, last, each = mamba_chunk_scan_combined(
        x, dt, -torch.rand(2), B, B, 4, seq_idx=seq_idx, cu_seqlens=edges, dt_softplus=True,
        return_final_states=True, return_varlen_states=True,
    )  # fmt: skip
    assert y.shape == x.shape and each.shape == (2, 2, 4, 3)
    torch.testing.assert_close(each[1:], last)
    norm, z = LayerNorm(8, group_size=4), torch.randn(2, 8)
    want = torch.cat([F.layer_norm(part, (4,)) for part in z.split(4, -1)], -1) * F.silu(z)
    torch.testing.assert_close(norm(z, z), want)
    assert RMSNorm(8).bias is None


def test_norms_of_parallel_blocks():
    x, x1, residual = torch.randn(3, 4, 8), torch.randn(3, 4, 8), torch.randn(3, 4, 8)
    weights = torch.randn(2, 8)
    y, y1, carried = published_ops.layer_norm_fn(
        x, weights[0], None, residual, x1=x1, weight1=weights[1], prenorm=True, is_rms_norm=True
    )
    torch.testing.assert_close(carried, x + x1 + residual)
    torch.testing.assert_close(y, F.rms_norm(carried, (8,), weights[0], 1e-6))
    torch.testing.assert_close(y1, F.rms_norm(carried, (8,), weights[1], 1e-6))
    scale = torch.rand(3, 4)
    got = published_ops.rms_norm_fn(x, weights[0], None, residual, rowscale=scale)
    torch.testing.assert_close(got, F.rms_norm(x * scale[..., None] + residual, (8,), weights[0], 1e-6))
    with pytest.raises(ValueError, match="rowscale: found together with x1"):
        published_ops.layer_norm_fn(x, weights[0], None, x1=x1, rowscale=scale)


def test_inner_function_norms_its_projections():
    xz, x_proj = torch.randn(1, 8, 6), torch.randn(8, 4)
    weights = (xz, torch.randn(4, 1, 3), None, x_proj, torch.randn(4, 2), torch.randn(5, 4), None, -torch.rand(4, 3))
    ones = dict(b_rms_weight=torch.ones(3), c_rms_weight=torch.ones(3), dt_rms_weight=torch.ones(2))
    want = published_ops.mamba_inner_fn(*weights, **ones)
    scaled = (*weights[:3], 100 * x_proj, *weights[4:])  # what a norm takes out again
    torch.testing.assert_close(published_ops.mamba_inner_fn(*scaled, **ones), want, rtol=1e-4, atol=1e-4)


def test_packed_sequences_are_refused():
    u, A, B = torch.ones(1, 2, 3), -torch.ones(2, 1), torch.ones(1, 1, 1, 3)
    with pytest.raises(ValueError, match="cu_seqlens"):
        published_cuda.mamba_fwd(u, u, A, B, B, None, None, None, True, torch.tensor([0, 3]))
