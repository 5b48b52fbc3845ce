# ruff: noqa: RUF059  (as published code unpacks)
"""A script as people write it for the published packages: it knows nothing of mamba_vision."""

import causal_conv1d
import selective_scan_cuda
import selective_scan_cuda_core
import selective_scan_cuda_oflex
import torch
import torch.nn as nn
from causal_conv1d import causal_conv1d_fn, causal_conv1d_update
from mamba_ssm import Mamba
from mamba_ssm.modules.mamba_simple import Mamba as SimpleMamba
from mamba_ssm.ops.selective_scan_interface import (
    bimamba_inner_fn,
    mamba_inner_fn,
    mamba_inner_fn_no_out_proj,
    selective_scan_fn,
    selective_scan_ref,
)
from mamba_ssm.ops.triton.selective_state_update import selective_state_update

try:
    from mamba_ssm.ops.triton.layernorm import RMSNorm, layer_norm_fn, rms_norm_fn
except ImportError:
    RMSNorm, layer_norm_fn, rms_norm_fn = None, None, None
from mamba_ssm.ops.triton.layer_norm import RMSNorm as NewRMSNorm

device = "cuda" if torch.cuda.is_available() else "cpu"


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = RMSNorm(dim, eps=1e-5)
        self.mixer = Mamba(dim, d_state=8, d_conv=4, expand=2, layer_idx=0)

    def forward(self, x, residual=None):
        fused = rms_norm_fn if isinstance(self.norm, RMSNorm) else layer_norm_fn
        x, residual = fused(
            x,
            self.norm.weight,
            self.norm.bias,
            residual=residual,
            prenorm=True,
            residual_in_fp32=True,
            eps=self.norm.eps,
        )
        return self.mixer(x), residual


class OflexScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, delta, A, B, C, D=None, delta_bias=None, delta_softplus=False):
        ctx.delta_softplus = delta_softplus
        out, x, *rest = selective_scan_cuda_oflex.fwd(u, delta, A, B, C, D, delta_bias, delta_softplus, 1, True)
        ctx.save_for_backward(u, delta, A, B, C, D, delta_bias, x)
        return out

    @staticmethod
    def backward(ctx, dout, *args):
        u, delta, A, B, C, D, delta_bias, x = ctx.saved_tensors
        du, ddelta, dA, dB, dC, dD, ddelta_bias, *rest = selective_scan_cuda_oflex.bwd(
            u, delta, A, B, C, D, delta_bias, dout, x, ctx.delta_softplus, 1
        )
        return du, ddelta, dA, dB, dC, dD, ddelta_bias, None


assert SimpleMamba is Mamba and NewRMSNorm is RMSNorm
assert callable(selective_scan_cuda.fwd) and callable(selective_scan_cuda_core.bwd)
assert callable(causal_conv1d.causal_conv1d_fn) and callable(causal_conv1d_update) and callable(mamba_inner_fn)
assert callable(bimamba_inner_fn) and callable(mamba_inner_fn_no_out_proj) and callable(selective_state_update)

torch.manual_seed(0)
model = nn.ModuleList([Block(16) for _ in range(2)]).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
x = torch.randn(2, 30, 16, device=device)
losses = []
for _ in range(5):
    hidden, residual = x, None
    for block in model:
        hidden, residual = block(hidden, residual)
    loss = (hidden + residual - x.roll(1, dims=1)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses

u, delta = torch.randn(2, 8, 30, device=device), torch.randn(2, 8, 30, device=device)
A, B = -torch.rand(8, 4, device=device), torch.randn(2, 2, 4, 30, device=device, requires_grad=True)
got = selective_scan_fn(u, delta, A, B, B, delta_softplus=True)
assert torch.allclose(got, selective_scan_ref(u, delta, A, B, B, delta_softplus=True), atol=1e-4)
out = OflexScan.apply(u, delta, A, B, B, None, None, True)
assert torch.allclose(got, out, atol=1e-4)
out.sum().backward()
assert B.grad.abs().sum() > 0
assert causal_conv1d_fn(u, torch.randn(8, 4, device=device), None, activation="silu").shape == u.shape
print("losses fell from", round(losses[0], 3), "to", round(losses[-1], 3))
