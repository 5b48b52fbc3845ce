"""FusionMamba's layers (Peng et al., arXiv 2404.07932, section III): a scan of one input, or of one steered by another.

In the fusion state space model, FSSM, the first input is what is scanned, kept and gated, and the second one says how:
step sizes, B and C are projected from it. Legend: B batch, L tokens, C model width, E inner width, K directions, R step
rank, N states, P = R + 2N. Tokens stay channels-last; no reordered copy of them is made.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.kernels import causal_conv1d, ordered_conv1d, ordered_scan
from mamba_vision.models.mixers.branch import add_branch, branch_rates, rates_name, step_rank
from mamba_vision.models.mixers.directions import directional_scan, stacked
from mamba_vision.models.mixers.init import init_step_projection_, s4d_real_log
from mamba_vision.models.mixers.precision import in_float16_region
from mamba_vision.models.mixers.scan_inputs import ScanInputs
from mamba_vision.registry import MIXERS, SCAN_ORDERS

SUFFIXES = ("", "_b", "_c", "_d")
FOUR_DIRECTIONS = ({"type": "bidirectional"}, {"type": "bidirectional", "axes": (1, 0)})
# The published bimamba_type in settings of `FusionSSM`.
PUBLISHED_TYPES = {
    "none": dict(scan="raster"),
    "v0": dict(scan="raster", two_inputs=True),
    "v1": dict(scan="bidirectional", shared=True),
    "v2": dict(scan="bidirectional"),
    "v3": dict(scan="bidirectional", two_inputs=True),
    "v4": dict(scan="bidirectional", two_inputs=True, second_gates=True),
    "v5": dict(scan="bidirectional", two_inputs=True, shared=True),
    "v6": {},
    "v7": dict(two_inputs=True),
    "v8": dict(shared=True),
    "v9": dict(two_inputs=True, shared=True),
}


@MIXERS.register_module()
class FusionSSM(nn.Module):
    """Selective state space layer over one or two inputs of the same grid; parameter names are the published ones.

    The published `bimamba_type` is spelled out, see `published`: v2 is a bidirectional `scan` of one input, v6 the
    default scan of one, v0, v3 and v7 are raster, bidirectional and default scans of two, v1, v5, v8 and v9 are v2, v3,
    v6 and v7 with `shared` weights; v4 is v3 with `second_gates`.

    Args:
        d_model: width C of the tokens.
        d_state: states N a channel.
        d_conv: width of the causal convolutions.
        expand: E = int(expand * d_model).
        dt_rank: rank R of the step sizes; 'auto' is ceil(d_model / 16).
        two_inputs: take a second input, from which step sizes, B and C come.
        shared: all directions have the same weights but their rates. As published, the first two directions (along
            rows) then read the convolved first input, the others the input itself, neither convolved nor activated.
        scan: config of the scan order, of four directions at most; default: rows and columns, forward and backward.
        norm: LayerNorm of the directions' mean.
        divide: take the directions' mean; False: their sum.
        second_gates: the gate is projected from the second input, too.
        conv_bias, bias: whether the convolutions and the outer projections have a bias.
        layer_scale: start of a learned factor `gamma` of every output channel; None: no factor.

    In a float16 autocast region the layer computes in float32, see `precision`; its output is then float32.

    Raises:
        ValueError: the scan has more than four directions, or `dt_rank` is not possible.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 8,
        d_conv: int = 4,
        expand: float = 1,
        dt_rank: int | str = "auto",
        two_inputs: bool = False,
        shared: bool = False,
        scan: dict | str | None = None,
        norm: bool = True,
        divide: bool = True,
        second_gates: bool = False,
        conv_bias: bool = True,
        bias: bool = False,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        if second_gates and (not two_inputs or shared):
            raise ValueError("second_gates: found True, expected two inputs and weights that are not shared")
        self.scan = SCAN_ORDERS.build(scan or list(FOUR_DIRECTIONS))
        if self.scan.n_directions > len(SUFFIXES):
            raise ValueError(f"scan: found {self.scan.n_directions} directions, expected at most {len(SUFFIXES)}")
        self.suffixes = SUFFIXES[: self.scan.n_directions]
        self.d_state, self.d_inner, self.dt_rank = d_state, int(expand * d_model), step_rank(dt_rank, d_model)
        self.two_inputs, self.shared, self.second_gates, self.divide = two_inputs, shared, second_gates, divide
        self.in_proj = nn.Linear(d_model, self.d_inner * (1 if second_gates else 2), bias=bias)
        if two_inputs:
            self.in_proj_b = nn.Linear(d_model, self.d_inner * (2 if second_gates else 1), bias=bias)
        add_branch(self, "", self.d_inner, d_state, self.dt_rank, d_conv, conv_bias)
        for suffix in self.suffixes[1:]:
            if shared:
                self.register_parameter(rates_name(suffix), nn.Parameter(s4d_real_log(self.d_inner, d_state)))
            else:
                add_branch(self, suffix, self.d_inner, d_state, self.dt_rank, d_conv, conv_bias)
                # As published, only the first direction's step sizes start as Mamba's do.
                setattr(self, f"dt_proj{suffix}", nn.Linear(self.dt_rank, self.d_inner))
        self.norm = nn.LayerNorm(self.d_inner) if norm else nn.Identity()
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)
        self.gamma = None if layer_scale is None else nn.Parameter(torch.full((d_model,), float(layer_scale)))

    @classmethod
    def published(
        cls,
        d_model: int,
        bimamba_type: str = "none",
        if_devide_out: bool = False,
        use_norm: bool = False,
        d_state: int = 16,
        expand: float = 2,
        init_layer_scale: float | None = None,
        **options,
    ) -> "FusionSSM":
        """The layer from the arguments of the published constructor; `options` are those of the same name here, and
        how the first direction's step sizes start, see `init_step_projection_`.

        Types 'none' and 'v1' ignore division and norm, as published.

        Raises:
            ValueError: an unknown `bimamba_type`.
        """
        if bimamba_type not in PUBLISHED_TYPES:
            known = ", ".join(map(repr, PUBLISHED_TYPES))
            raise ValueError(f"bimamba_type: found {bimamba_type!r}, expected one of {known}")
        plain = bimamba_type in ("none", "v1")
        steps = {name: options.pop(name) for name in list(options) if name.startswith("dt_") and name != "dt_rank"}
        layer = cls(
            d_model, d_state=d_state, expand=expand, norm=use_norm and not plain, divide=if_devide_out and not plain,
            layer_scale=init_layer_scale, **PUBLISHED_TYPES[bimamba_type], **options,
        )  # fmt: skip
        init_step_projection_(layer.dt_proj, **steps)
        if plain:
            layer.published_ignored = ("norm.*",)  # may be in the file, unused
        return layer

    def extra_repr(self) -> str:
        return f"{2 if self.two_inputs else 1} inputs, scan={self.scan.name!r}, d_state={self.d_state}"

    def forward(self, x_BLC: Tensor, second_BLC: Tensor | None = None, grid: tuple[int, ...] | None = None) -> Tensor:
        """(B, L, C) -> (B, L, C).

        Args:
            second_BLC: the second input (B, L, C), if the layer has two.
            grid: shape of the map whose row-major flattening the tokens are; None: a line of L.

        Raises:
            ValueError: a second input is missing, unexpected, or of another shape than the first.
        """
        self._check(x_BLC, second_BLC)
        if in_float16_region(x_BLC):
            with torch.autocast(x_BLC.device.type, enabled=False):
                kind = self.in_proj.weight.dtype
                return self.forward(x_BLC.to(kind), None if second_BLC is None else second_BLC.to(kind), grid)
        x_BLE, z_BLE, steers_BLE = self._projected(x_BLC, second_BLC)
        # The gate is the same for every direction's result, so it is applied to their sum.
        y_BLE = sum(ordered_scan(**scan, z=z_BLE) for scan in self._scans(x_BLE, steers_BLE, grid))
        y_BLC = self.out_proj(self.norm(y_BLE / len(self.suffixes) if self.divide else y_BLE))
        return y_BLC if self.gamma is None else y_BLC * self.gamma

    def scan_inputs(
        self, x_BLC: Tensor, second_BLC: Tensor | None = None, grid: tuple[int, ...] | None = None
    ) -> ScanInputs:
        """What `forward` would scan with, every sequence in the order in which its direction reads it."""
        self._check(x_BLC, second_BLC)
        x_BLE, z_BLE, steers_BLE = self._projected(x_BLC, second_BLC)
        parts = [_written_out(scan, z_BLE) for scan in self._scans(x_BLE, steers_BLE, grid)]
        joined = {}
        for name in ("u", "delta", "A", "B", "C", "D", "z", "order"):
            tensors = [getattr(part, name) for part in parts]
            joined[name] = torch.cat(tensors, dim=0 if name in ("A", "D", "order") else 1)
        return ScanInputs(**joined)

    def _check(self, x_BLC: Tensor, second_BLC: Tensor | None) -> None:
        if (second_BLC is not None) != self.two_inputs:
            raise ValueError(f"second_BLC: this layer has {2 if self.two_inputs else 1} inputs")
        if second_BLC is not None and second_BLC.shape != x_BLC.shape:
            raise ValueError(f"second_BLC: found shape {tuple(second_BLC.shape)}, expected {tuple(x_BLC.shape)}")

    def _projected(self, x_BLC: Tensor, second_BLC: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """What is scanned, the gate, and what steers the scan (None: the first of these, convolved)."""
        if self.second_gates:
            steers_BLE, z_BLE = self.in_proj_b(second_BLC).chunk(2, dim=-1)
            return self.in_proj(x_BLC), z_BLE, steers_BLE
        x_BLE, z_BLE = self.in_proj(x_BLC).chunk(2, dim=-1)
        return x_BLE, z_BLE, self.in_proj_b(second_BLC) if self.two_inputs else None

    def _scans(self, x_BLE: Tensor, steers_BLE: Tensor | None, grid: tuple[int, ...] | None) -> list[dict]:
        """Arguments of one `ordered_scan`, or of two where the directions read different inputs; results add up."""
        order = self.scan(grid or (x_BLE.shape[1],), x_BLE.device).indices
        if self.shared:
            return self._shared(x_BLE, steers_BLE, order)
        if steers_BLE is None:
            return [directional_scan(self, self.suffixes, x_BLE, order)]
        conv = (stacked(self, "conv1d.weight", self.suffixes).squeeze(2), stacked(self, "conv1d.bias", self.suffixes))
        weight_KPE = stacked(self, "x_proj.weight", self.suffixes)
        p_BLKP = F.linear(steers_BLE, weight_KPE.flatten(0, 1)).unflatten(-1, weight_KPE.shape[:2])
        return [
            dict(
                self._steered(p_BLKP),
                x=x_BLE,
                order=order,
                dt_weight=stacked(self, "dt_proj.weight", self.suffixes),
                A=torch.stack([branch_rates(self, suffix) for suffix in self.suffixes]),
                D=torch.stack([getattr(self, f"D{suffix}") for suffix in self.suffixes]),
                dt_bias=stacked(self, "dt_proj.bias", self.suffixes),
                conv=conv,
            )
        ]

    def _shared(self, x_BLE: Tensor, steers_BLE: Tensor | None, order: Tensor) -> list[dict]:
        weight = self.conv1d.weight.squeeze(1)
        u_BLE = causal_conv1d(x_BLE.transpose(1, 2), weight, self.conv1d.bias, activation="silu").transpose(1, 2)
        p_BLP = self.x_proj(u_BLE if steers_BLE is None else steers_BLE)
        scans = []
        for read_BLE, first in ((u_BLE, 0), (x_BLE, 2)):
            suffixes = self.suffixes[first : first + 2]
            if not suffixes:
                continue
            count = len(suffixes)
            scans.append(
                dict(
                    self._steered(p_BLP.unsqueeze(2).expand(-1, -1, count, -1)),
                    x=read_BLE,
                    order=order[first : first + 2],
                    dt_weight=self.dt_proj.weight.expand(count, -1, -1),
                    A=torch.stack([branch_rates(self, suffix) for suffix in suffixes]),
                    D=self.D.expand(count, -1),
                    dt_bias=self.dt_proj.bias.expand(count, -1),
                )
            )
        return scans

    def _steered(self, p_BLKP: Tensor) -> dict:
        """Step sizes, B and C as they are projected: one row a token."""
        dt_BLKR, B_BLKN, C_BLKN = p_BLKP.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        return dict(dt=dt_BLKR, B=B_BLKN, C=C_BLKN, rows="tokens")


def _written_out(scan: dict, z_BLE: Tensor) -> ScanInputs:
    """The sequences of one `ordered_scan`, from its arguments."""
    order = scan["order"]
    rows = [scan[name] for name in ("dt", "B", "C")]
    if scan.get("rows") == "tokens":
        rows = [torch.stack([t[:, path, k] for k, path in enumerate(order)], dim=1) for t in rows]
    dt_BKLR, B_BKLN, C_BKLN = rows
    delta_BKLE = dt_BKLR @ scan["dt_weight"].transpose(1, 2)
    wide = torch.promote_types(delta_BKLE.dtype, torch.float32)
    delta_BKLE = F.softplus(delta_BKLE.to(wide) + scan["dt_bias"][:, None].to(wide))
    u_BKLE = ordered_conv1d(scan["x"], order, *scan["conv"]) if "conv" in scan else scan["x"][:, order]
    u, delta, B, C, z = (t.transpose(2, 3) for t in (u_BKLE, delta_BKLE, B_BKLN, C_BKLN, z_BLE[:, order]))
    return ScanInputs(u, delta, scan["A"], B, C, scan["D"], z, order)
