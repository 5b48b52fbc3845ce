"""MambaDFuse's mixer of several inputs (Li et al., arXiv 2404.08406, figure 4): each scanned by itself, results added.

Legend: B batch, L tokens, C model width, E inner width, K = 2 or 3 inputs, R step rank, N states.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.kernels import causal_conv1d, selective_scan
from mamba_vision.models.mixers.bidirectional import BidirectionalMamba
from mamba_vision.models.mixers.branch import add_branch, branch_rates, step_rank
from mamba_vision.models.mixers.mamba import Mamba
from mamba_vision.models.mixers.precision import in_float16_region
from mamba_vision.models.mixers.scan_inputs import ScanInputs
from mamba_vision.registry import MIXERS

# Input projection, branch of parameters, and the branch whose rates it uses: the last two inputs share theirs.
BRANCHES = (("in_proj", "", ""), ("in_proj_extra1", "_b", "_b"), ("in_proj_extra2", "_c", "_b"))


@MIXERS.register_module()
class MultiInputMamba(nn.Module):
    """Causal, gated selective scans, one of each input, added up before one output projection.

    With three inputs it is the published type 'm3', with two its 'v3', whose files hold the third one's weights unused.

    Args:
        d_model: width C of the tokens of all inputs.
        d_state: states N a channel.
        d_conv: width of the causal convolutions.
        expand: E = int(expand * d_model).
        dt_rank: rank R of the step sizes; 'auto' is ceil(d_model / 16).
        inputs: K, 2 or 3.
        divide: take the mean of the results instead of the sum (published: if_devide_out, which no network sets).
        conv_bias, bias: whether the convolutions and the outer projections have a bias.

    In a float16 autocast region the layer computes in float32, see `precision`; its output is then float32.

    Raises:
        ValueError: `dt_rank` or the number of inputs is not possible.
    """

    # of a published file's third input, which 'v3' does not read
    published_ignored = ("in_proj_extra2.*", "*_c.*", "D_c")

    def __init__(
        self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: float = 2, dt_rank: int | str = "auto",
        inputs: int = 3, divide: bool = False, conv_bias: bool = True, bias: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if inputs not in (2, 3):
            raise ValueError(f"inputs: found {inputs!r}, expected 2 or 3")
        self.branches, self.divide = BRANCHES[:inputs], divide
        if inputs == 3:
            self.published_ignored = ()
        self.d_state, self.d_inner, self.dt_rank = d_state, int(expand * d_model), step_rank(dt_rank, d_model)
        for projection, suffix, rates in self.branches:
            setattr(self, projection, nn.Linear(d_model, 2 * self.d_inner, bias=bias))
            add_branch(self, suffix, self.d_inner, d_state, self.dt_rank, d_conv, conv_bias)
            if suffix:  # as published, only the first branch's step sizes start as Mamba's do
                setattr(self, f"dt_proj{suffix}", nn.Linear(self.dt_rank, self.d_inner))
            if rates != suffix:
                delattr(self, f"A{suffix}_log")
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)

    @classmethod
    def published(
        cls, d_model: int, bimamba_type: str | None = "none", if_devide_out: bool = False, **options
    ) -> nn.Module:
        """The layer from the arguments of MambaDFuse's `Mamba`; `options` are those of the same name here.

        'none' is a `Mamba`, 'v2' a `BidirectionalMamba`, whose published files hold the other types' weights unused.

        Raises:
            ValueError: another type.
        """
        if bimamba_type in (None, "none"):
            return Mamba(d_model, **options)
        if bimamba_type == "v2":
            layer = BidirectionalMamba(d_model, halve=if_devide_out, **options)
            layer.published_ignored = ("in_proj_extra1.*", *cls.published_ignored)
            return layer
        if bimamba_type not in ("v3", "m3"):
            raise ValueError(f"bimamba_type: found {bimamba_type!r}, expected 'none', 'v2', 'v3' or 'm3'")
        return cls(d_model, inputs=2 if bimamba_type == "v3" else 3, divide=if_devide_out, **options)

    def extra_repr(self) -> str:
        return f"d_state={self.d_state}, dt_rank={self.dt_rank}"

    def forward(self, *inputs_BLC: Tensor) -> Tensor:
        """K times (B, L, C) -> (B, L, C).

        Raises:
            ValueError: the inputs are of different shapes, or another number.
        """
        self._check(inputs_BLC)
        if in_float16_region(inputs_BLC[0]):
            with torch.autocast(inputs_BLC[0].device.type, enabled=False):
                return self.forward(*(t.to(self.in_proj.weight.dtype) for t in inputs_BLC))
        total_BEL = 0
        for tokens_BLC, branch in zip(inputs_BLC, self.branches):
            s = self._branch(tokens_BLC, *branch)
            total_BEL = total_BEL + selective_scan(**s, delta_softplus=True)
        if self.divide:
            total_BEL = total_BEL / len(self.branches)
        return self.out_proj(total_BEL.transpose(1, 2))

    def scan_inputs(self, *inputs_BLC: Tensor) -> ScanInputs:
        """What `forward` would scan with: K scans, one an input, in the tokens' own order."""
        self._check(inputs_BLC)
        parts = [self._branch(tokens_BLC, *branch) for tokens_BLC, branch in zip(inputs_BLC, self.branches)]
        for part in parts:
            bias = part.pop("delta_bias")
            part["delta"] = F.softplus(part["delta"].to(bias.dtype) + bias[:, None])
        return ScanInputs(
            **{name: torch.stack([p[name] for p in parts], dim=0 if name in ("A", "D") else 1) for name in parts[0]}
        )

    def _branch(self, tokens_BLC: Tensor, projection: str, suffix: str, rates: str) -> dict[str, Tensor]:
        """Arguments of the selective scan of one input."""
        part = {name: getattr(self, name + suffix) for name in ("conv1d", "x_proj", "dt_proj", "D")}
        x_BLE, z_BLE = getattr(self, projection)(tokens_BLC).chunk(2, dim=-1)
        weight = part["conv1d"].weight.squeeze(1)
        u_BEL = causal_conv1d(x_BLE.transpose(1, 2), weight, part["conv1d"].bias, activation="silu")
        p_BLP = part["x_proj"](u_BEL.transpose(1, 2))
        dt_BLR, B_BLN, C_BLN = p_BLP.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        wide = torch.promote_types(part["D"].dtype, torch.float32)
        return dict(
            u=u_BEL,
            delta=F.linear(dt_BLR, part["dt_proj"].weight).transpose(1, 2),
            A=branch_rates(self, rates),
            B=B_BLN.transpose(1, 2),
            C=C_BLN.transpose(1, 2),
            D=part["D"].to(wide),
            z=z_BLE.transpose(1, 2),
            delta_bias=part["dt_proj"].bias.to(wide),
        )

    def _check(self, inputs: tuple[Tensor, ...]) -> None:
        shapes = [tuple(t.shape) for t in inputs]
        if len(inputs) != len(self.branches) or any(shape != shapes[0] for shape in shapes[1:]):
            raise ValueError(f"inputs_BLC: found shapes {shapes}, expected {len(self.branches)} of one shape")
