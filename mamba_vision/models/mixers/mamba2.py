"""The Mamba-2 layer (Dao and Gu, arXiv 2405.21060, section 7): one causal direction over a sequence.

Legend of the suffixes: B batch, L length, C model width, E = expand * C inner width, S = d_ssm channels of the scan,
M = E - S channels of the gated MLP beside it, H heads, P = S / H channels a head, G groups, N states a channel; X is
the convolution's S + 2 G N channels, W its width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.kernels import causal_conv1d, ssd
from mamba_vision.models.layers.gated_norm import GatedRMSNorm
from mamba_vision.models.mixers.decoding import decode
from mamba_vision.models.mixers.init import inverse_softplus, log_uniform_steps
from mamba_vision.models.mixers.precision import in_float16_region
from mamba_vision.registry import MIXERS


@MIXERS.register_module()
class Mamba2(nn.Module):
    """State space layer with one decay a head; options and parameter names are those of mamba_ssm's `Mamba2`.

    Args:
        d_model: Width C of the tokens.
        d_state: States N a channel.
        d_conv: Width W of the causal convolution, which runs over the scan's input, B and C together.
        conv_init: Draw the convolution's weight within ± this; None: PyTorch's own start.
        expand: E = int(expand * d_model).
        headdim: Channels P a head.
        d_ssm: Channels S of the scan; the other E - S pass through a gated MLP beside it. None: all.
        ngroups: Groups G of heads, each with its own B and C.
        A_init_range: Decay rates start uniform in here.
        D_has_hdim: A skip weight for each channel instead of each head.
        rmsnorm: Gate by a gated RMSNorm (one a group) instead of the gate alone.
        norm_before_gate: Norm first, then gate.
        dt_min, dt_max, dt_init_floor: The step sizes start log-uniform in here, not below the floor.
        dt_limit: Bounds of the step sizes.
        bias: Whether the input and output projections have one.
        conv_bias: Whether the convolution has one.
        chunk_size: Steps computed as one matrix; speed and memory only.
        use_mem_eff_path: Accepted because published code passes it; there is one path.
        layer_idx: Key of this layer in an inference cache.

    In a float16 autocast region the layer computes in float32, see `precision`; its output is then float32.

    Raises:
        ValueError: a size is not positive, or one does not divide the other.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        conv_init: float | None = None,
        expand: float = 2,
        headdim: int = 64,
        d_ssm: int | None = None,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1, 16),
        D_has_hdim: bool = False,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 256,
        use_mem_eff_path: bool = True,
        layer_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        d_inner = int(expand * d_model)
        d_ssm = d_inner if d_ssm is None else d_ssm
        sizes = dict(d_model=d_model, d_state=d_state, d_conv=d_conv, expand=d_inner, headdim=headdim, d_ssm=d_ssm)
        for name, value in {**sizes, "ngroups": ngroups, "chunk_size": chunk_size}.items():
            if value < 1:
                raise ValueError(f"{name} must be positive, found {value}")
        if d_ssm > d_inner or d_ssm % headdim:
            raise ValueError(
                f"d_ssm: found {d_ssm}, expected a multiple of headdim {headdim} and at most the inner width {d_inner}"
            )
        heads = d_ssm // headdim
        if heads % ngroups:
            raise ValueError(f"ngroups: found {ngroups}, expected a divisor of the {heads} heads")
        low, high = A_init_range
        if not 0 < low <= high:
            raise ValueError(f"A_init_range: found {tuple(A_init_range)}, expected 0 < low <= high")
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner, self.headdim, self.d_ssm, self.ngroups, self.nheads = d_inner, headdim, d_ssm, ngroups, heads
        self.D_has_hdim, self.rmsnorm, self.norm_before_gate = D_has_hdim, rmsnorm, norm_before_gate
        self.dt_limit, self.chunk_size, self.layer_idx = tuple(dt_limit), chunk_size, layer_idx
        self.use_mem_eff_path = use_mem_eff_path

        factory = {"device": device, "dtype": dtype}
        conv_dim = d_ssm + 2 * ngroups * d_state
        self.in_proj = nn.Linear(d_model, d_inner + (d_inner - d_ssm) + conv_dim + heads, bias=bias, **factory)
        self.conv1d = nn.Conv1d(
            conv_dim, conv_dim, d_conv, groups=conv_dim, padding=d_conv - 1, bias=conv_bias, **factory
        )
        if conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -conv_init, conv_init)
        steps = inverse_softplus(log_uniform_steps(heads, dt_min, dt_max, dt_init_floor)).to(device)
        rates = torch.empty(heads, device=device, dtype=torch.float32).uniform_(low, high).log()
        skip = torch.ones(d_ssm if D_has_hdim else heads, device=device, dtype=torch.float32)
        # float32 whatever `dtype`, as in Mamba; the mark is the one that mamba_ssm's users look for
        for name, value in (("dt_bias", steps), ("A_log", rates), ("D", skip)):
            self.register_parameter(name, nn.Parameter(value))
            getattr(self, name)._no_weight_decay = True
        if rmsnorm:
            self.norm = GatedRMSNorm(d_ssm, 1e-5, d_ssm // ngroups, norm_before_gate, **factory)
        self.out_proj = nn.Linear(d_inner, d_model, bias=bias, **factory)

    def extra_repr(self) -> str:
        return f"d_state={self.d_state}, heads={self.nheads}, groups={self.ngroups}"

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the authors train without weight decay."""
        return {"A_log", "D", "dt_bias"}

    def forward(
        self,
        u_BLC: Tensor,
        seqlen: int | None = None,
        seq_idx: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inference_params: object | None = None,
    ) -> Tensor:
        """(B, L, C) -> (B, L, C).

        Args:
            seqlen: L, where the tokens come as (B * L, C); they then leave so.
            seq_idx: (B, L) integers, which of several packed sequences a token belongs to.
            cu_seqlens: (sequences + 1,) where sequences packed into one row begin and the last one ends: another way
                to say seq_idx.
            inference_params: Decoding state as language models pass it, see `Mamba.forward`.

        Raises:
            ValueError: packed sequences together with a decoding state, or both ways to say which they are.
        """
        tokens = u_BLC if seqlen is None else u_BLC.unflatten(0, (-1, seqlen))
        if cu_seqlens is not None:
            seq_idx = self._indices(cu_seqlens, seq_idx, tokens)
        if inference_params is None:
            y_BLC = self._mix(tokens, seq_idx=seq_idx)[0]
            return y_BLC if seqlen is None else y_BLC.flatten(0, 1)
        if seq_idx is not None:
            raise ValueError("seq_idx and cu_seqlens cannot be combined with inference_params")
        y_BLC = decode(self, tokens, inference_params)
        return y_BLC if seqlen is None else y_BLC.flatten(0, 1)

    def step(self, x_BLC: Tensor, conv_state: Tensor, ssm_state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Continue a sequence by the tokens of x (usually one), from a cache that is brought up to date in place.

        Args:
            x_BLC: The next tokens.
            conv_state: (B, X, W), the last W inputs of the convolution.
            ssm_state: (B, H, P, N), the state of the scan.

        Returns:
            The output (B, L, C) and the two states.
        """
        y_BLC, new_conv, new_ssm = self._mix(x_BLC, conv_state, ssm_state)
        conv_state.copy_(new_conv)
        ssm_state.copy_(new_ssm)
        return y_BLC, conv_state, ssm_state

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int = 0, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """States (B, X, W) and (B, H, P, N) before the first token, for `step`. They do not grow: `max_seqlen` is
        ignored.

        Args:
            dtype: Type of the convolution's cache (default: its weight's). The scan's state is at least float32.
        """
        weight = self.conv1d.weight
        conv_state = weight.new_zeros(batch_size, len(weight), self.d_conv, dtype=dtype or weight.dtype)
        shape = (batch_size, self.nheads, self.headdim, self.d_state)
        ssm_state = weight.new_zeros(shape, dtype=torch.promote_types(weight.dtype, torch.float32))
        start = self._start_states()
        return conv_state, ssm_state if start is None else ssm_state + start.detach()

    def _start_states(self) -> Tensor | None:
        """(H, P, N), the state before the first token; None for zeros."""
        return None

    def _indices(self, cu_seqlens: Tensor, seq_idx: Tensor | None, tokens_BLC: Tensor) -> Tensor:
        batch, length = tokens_BLC.shape[:2]
        if seq_idx is not None:
            raise ValueError("cu_seqlens and seq_idx say the same: give one of them")
        if batch != 1 or cu_seqlens.dim() != 1 or int(cu_seqlens[0]) != 0 or int(cu_seqlens[-1]) != length:
            raise ValueError(
                f"cu_seqlens: found {cu_seqlens.tolist()}, expected rising positions from 0 to {length} for one row of "
                f"tokens {tuple(tokens_BLC.shape)}"
            )
        positions = torch.arange(length, device=tokens_BLC.device)
        return torch.searchsorted(cu_seqlens[1:].to(positions), positions, right=True)[None]

    def _mix(
        self,
        u_BLC: Tensor,
        conv_state: Tensor | None = None,
        ssm_state: Tensor | None = None,
        seq_idx: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        if in_float16_region(u_BLC):
            with torch.autocast(u_BLC.device.type, enabled=False):
                return self._mix(u_BLC.to(self.in_proj.weight.dtype), conv_state, ssm_state, seq_idx)
        bc, mlp = self.ngroups * self.d_state, self.d_inner - self.d_ssm
        sizes = [mlp, mlp, self.d_ssm, self.d_ssm + 2 * bc, self.nheads]
        z0_BLM, x0_BLM, z_BLS, xBC_BLX, dt_BLH = self.in_proj(u_BLC).split(sizes, dim=-1)
        past = None
        if conv_state is not None:
            past = conv_state[:, :, 1:].to(xBC_BLX.dtype)
            joined = torch.cat([conv_state, xBC_BLX.transpose(1, 2).to(conv_state.dtype)], dim=-1)
            conv_state = joined[..., -self.d_conv :]
        xBC_BXL = causal_conv1d(
            xBC_BLX.transpose(1, 2), self.conv1d.weight.squeeze(1), self.conv1d.bias, "silu", past, seq_idx=seq_idx
        )
        x_BLS, B_BLZ, C_BLZ = xBC_BXL.transpose(1, 2).split([self.d_ssm, bc, bc], dim=-1)
        if ssm_state is None and (start := self._start_states()) is not None:
            ssm_state = start.expand(len(u_BLC), -1, -1, -1)
        wide = torch.promote_types(self.A_log.dtype, torch.float32)
        y_BLHP, ssm_state = ssd(
            x_BLS.unflatten(-1, (-1, self.headdim)),
            dt_BLH,
            -torch.exp(self.A_log.to(wide)),
            B_BLZ.unflatten(-1, (self.ngroups, -1)),
            C_BLZ.unflatten(-1, (self.ngroups, -1)),
            D=(self.D.view(-1, self.headdim) if self.D_has_hdim else self.D).to(wide),
            z=None if self.rmsnorm else z_BLS.unflatten(-1, (-1, self.headdim)),
            dt_bias=self.dt_bias.to(wide),
            initial_states=ssm_state,
            seq_idx=seq_idx,
            dt_softplus=True,
            dt_limit=self.dt_limit,
            return_final_states=True,
            chunk_size=self.chunk_size,
        )
        y_BLS = y_BLHP.flatten(2)
        if self.rmsnorm:
            y_BLS = self.norm(y_BLS, z_BLS)
        if mlp:
            y_BLS = torch.cat([F.silu(z0_BLM) * x0_BLM, y_BLS], dim=-1)
        return self.out_proj(y_BLS), conv_state, ssm_state


@MIXERS.register_module()
class Mamba2Simple(Mamba2):
    """mamba_ssm's `Mamba2Simple`: `Mamba2` with one norm over all channels, and states that may be learned.

    Args:
        learnable_init_states: Learn the state (H, P, N) before the first token, from zero.
        activation: 'silu' or 'swish', the same.
        others: of `Mamba2`, some with other defaults.

    Raises:
        ValueError: an unknown activation, or widths that do not divide.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        d_conv: int = 4,
        conv_init: float | None = None,
        expand: float = 2,
        headdim: int = 128,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1, 16),
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
        learnable_init_states: bool = False,
        activation: str = "swish",
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 256,
        use_mem_eff_path: bool = True,
        layer_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if activation not in ("silu", "swish"):
            raise ValueError(f"activation: found {activation!r}, expected 'silu' or 'swish'")
        super().__init__(
            d_model, d_state, d_conv, conv_init, expand, headdim, None, ngroups, A_init_range,
            dt_min=dt_min, dt_max=dt_max, dt_init_floor=dt_init_floor, dt_limit=dt_limit, bias=bias,
            conv_bias=conv_bias, chunk_size=chunk_size, use_mem_eff_path=use_mem_eff_path, layer_idx=layer_idx,
            device=device, dtype=dtype,
        )  # fmt: skip
        self.norm.group_size = None
        if learnable_init_states:
            shape = (self.nheads, self.headdim, self.d_state)
            self.init_states = nn.Parameter(torch.zeros(shape, device=device, dtype=dtype))
            self.init_states._no_weight_decay = True

    def no_weight_decay(self) -> set[str]:
        return super().no_weight_decay() | ({"init_states"} if hasattr(self, "init_states") else set())

    def forward(self, u_BLC: Tensor, seq_idx: Tensor | None = None) -> Tensor:
        """(B, L, C) -> (B, L, C); `seq_idx` as for `Mamba2`."""
        return self._mix(u_BLC, seq_idx=seq_idx)[0]

    def _start_states(self) -> Tensor | None:
        return getattr(self, "init_states", None)
