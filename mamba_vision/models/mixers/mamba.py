"""The Mamba-1 layer (Gu and Dao, arXiv 2312.00752, figure 3 and algorithm 2): one causal direction over a sequence.

Legend of the suffixes: B batch, L length, C model width, E = expand * C inner width, R step rank, N states; W is the
width of the convolution. Tokens stay channels-last; the ops take (B, E, L) of any strides, so their arguments are
transposed views and nothing is copied.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.kernels import causal_conv1d, selective_scan
from mamba_vision.models.mixers.branch import add_branch, branch_rates, step_rank
from mamba_vision.models.mixers.decoding import decode
from mamba_vision.models.mixers.precision import in_float16_region
from mamba_vision.models.mixers.scan_inputs import ScanInputs
from mamba_vision.registry import MIXERS


@MIXERS.register_module()
class Mamba(nn.Module):
    """Selective state space layer with gate; options and parameter names are those of mamba_ssm's `Mamba`.

    Args:
        d_model: Width C of the tokens.
        d_state: States N a channel.
        d_conv: Width W of the causal convolution.
        expand: E = int(expand * d_model).
        dt_rank: Rank R of the step sizes; 'auto' is ceil(d_model / 16).
        dt_min, dt_max, dt_init, dt_scale, dt_init_floor: How the step sizes start, see `init_step_projection_`.
        conv_bias: Whether the convolution has a bias.
        bias: Whether the input and output projections have one.
        use_fast_path: Accepted because published code passes it; there is one path, and it is the fast one.
        layer_idx: Key of this layer in an inference cache.

    In a float16 autocast region the layer computes in float32, see `precision`; its output is then float32.

    Raises:
        ValueError: a size is not positive, or `dt_rank`, `dt_init` is unknown.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        d_inner = int(expand * d_model)
        for name, value in (("d_model", d_model), ("d_state", d_state), ("d_conv", d_conv), ("expand", d_inner)):
            if value < 1:
                raise ValueError(f"{name} must be positive, found {value}")
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner, self.dt_rank = d_inner, step_rank(dt_rank, d_model)
        self.use_fast_path, self.layer_idx = use_fast_path, layer_idx

        factory = {"device": device, "dtype": dtype}
        steps = dict(dt_min=dt_min, dt_max=dt_max, dt_init=dt_init, dt_scale=dt_scale, dt_init_floor=dt_init_floor)
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=bias, **factory)
        add_branch(self, "", d_inner, d_state, self.dt_rank, d_conv, conv_bias, steps, **factory)
        self.out_proj = nn.Linear(d_inner, d_model, bias=bias, **factory)

    def extra_repr(self) -> str:
        return f"d_state={self.d_state}, dt_rank={self.dt_rank}"

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the authors train without weight decay."""
        return {"A_log", "D"}

    def forward(self, x_BLC: Tensor, inference_params: object | None = None) -> Tensor:
        """(B, L, C) -> (B, L, C).

        Args:
            inference_params: Decoding state as language models pass it, see `decode`: the tokens of x then continue
                those of the calls before.

        Raises:
            ValueError: `inference_params` without a `layer_idx`.
        """
        if inference_params is None:
            return self._mix(x_BLC)[0]
        return decode(self, x_BLC, inference_params)

    def step(self, x_BLC: Tensor, conv_state: Tensor, ssm_state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Continue a sequence by the tokens of x (usually one), from a cache that is brought up to date in place.

        Args:
            x_BLC: The next tokens.
            conv_state: (B, E, W), the last W inputs of the convolution.
            ssm_state: (B, E, N), the state of the scan.

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
        """Zero states (B, E, W) and (B, E, N) for `step`. They do not grow: `max_seqlen` is ignored.

        Args:
            dtype: Type of the convolution's cache (default: its weight's). The scan's state is at least float32.
        """
        weight = self.conv1d.weight
        conv_state = weight.new_zeros(batch_size, self.d_inner, self.d_conv, dtype=dtype or weight.dtype)
        state_type = torch.promote_types(weight.dtype, torch.float32)
        return conv_state, weight.new_zeros(batch_size, self.d_inner, self.d_state, dtype=state_type)

    def scan_inputs(self, x_BLC: Tensor) -> ScanInputs:
        """What `forward` would scan with, for one scan (K = 1) in the tokens' own order."""
        x_BLE, z_BLE = self.in_proj(x_BLC).chunk(2, dim=-1)
        u_BEL, dt_BLE, B_BNL, C_BNL = self._branch(x_BLE)
        bias = self.dt_proj.bias.to(torch.promote_types(self.dt_proj.bias.dtype, torch.float32))
        delta_BEL = F.softplus(dt_BLE.to(bias.dtype) + bias).transpose(1, 2)
        per_batch = (t.unsqueeze(1) for t in (u_BEL, delta_BEL, B_BNL, C_BNL, z_BLE.transpose(1, 2)))
        u, delta, B, C, z = per_batch
        return ScanInputs(u, delta, branch_rates(self)[None], B, C, self.D[None], z)

    def _branch(self, x_BLE: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Convolved signal, step sizes without bias, B and C; `past` (B, E, W-1) holds the inputs before the first."""
        weight = self.conv1d.weight.squeeze(1)
        u_BEL = causal_conv1d(x_BLE.transpose(1, 2), weight, self.conv1d.bias, activation="silu", initial_states=past)
        u_BLE = u_BEL.transpose(1, 2)
        dt_BLR, B_BLN, C_BLN = self.x_proj(u_BLE).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        # The bias is added inside the scan, in float32: steps near dt_min would vanish beside it in half precision.
        dt_BLE = F.linear(dt_BLR, self.dt_proj.weight)
        return u_BEL, dt_BLE, B_BLN.transpose(1, 2), C_BLN.transpose(1, 2)

    def _mix(
        self, x_BLC: Tensor, conv_state: Tensor | None = None, ssm_state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if in_float16_region(x_BLC):
            with torch.autocast(x_BLC.device.type, enabled=False):
                return self._mix(x_BLC.to(self.in_proj.weight.dtype), conv_state, ssm_state)
        x_BLE, z_BLE = self.in_proj(x_BLC).chunk(2, dim=-1)
        past = None
        if conv_state is not None:
            past = conv_state[:, :, 1:].to(x_BLE.dtype)
            conv_state = torch.cat([conv_state, x_BLE.transpose(1, 2).to(conv_state.dtype)], dim=-1)[
                ..., -self.d_conv :
            ]
        u_BEL, dt_BLE, B_BNL, C_BNL = self._branch(x_BLE, past)
        y_BEL = selective_scan(
            u_BEL,
            dt_BLE.transpose(1, 2),
            branch_rates(self),
            B_BNL,
            C_BNL,
            self.D.to(torch.promote_types(self.D.dtype, torch.float32)),
            z=z_BLE.transpose(1, 2),
            delta_bias=self.dt_proj.bias.to(torch.promote_types(self.dt_proj.bias.dtype, torch.float32)),
            delta_softplus=True,
            return_last_state=ssm_state is not None,
            initial_state=ssm_state,
        )
        if ssm_state is not None:
            y_BEL, ssm_state = y_BEL
        return self.out_proj(y_BEL.transpose(1, 2)), conv_state, ssm_state
