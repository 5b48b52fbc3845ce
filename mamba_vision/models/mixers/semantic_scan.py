"""MambaIRv2's attentive state space module (Guo et al., CVPR 2025, arXiv 2411.15269, section 3.2).

A small network puts every pixel in a class; the scan reads the pixels class by class, and a learned prompt of the class
is added to the vector C with which a pixel reads the state.

Legend: B batch, H, W rows and columns, L = H * W pixels, C model width, D inner width, K = 1 order, R step rank,
N states, T classes. Parameter names are the published ones.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.kernels import ordered_scan
from mamba_vision.models.layers.fused_norm import wide_layer_norm
from mamba_vision.models.layers.options import one_of
from mamba_vision.models.mixers.branch import step_rank
from mamba_vision.models.mixers.scan_inputs import ScanInputs
from mamba_vision.models.mixers.ss2d import start_of_steps
from mamba_vision.registry import MIXERS
from mamba_vision.scan_orders import Orders, gather_tokens, orders_from_scores, return_tokens

ROUTE_NOISES = ("training", "always", "never")


@MIXERS.register_module()
class SemanticScan(nn.Module):
    """Scans pixels sorted by a learned class.

    Args:
        d_model: C.
        d_inner: D.
        d_state: N.
        inner_rank: rank of the prompts' table.
        num_tokens: classes T.
        route_noise: when Gumbel noise is added to the class logits: in 'training' only, so that evaluation repeats;
            'always', as published; or 'never'.
        stable_sort: pixels of one class keep the order of the image, so that every machine computes the same. False, as
            published: in which order they come depends on the processor. Exported models sort stably either way.

    Raises:
        ValueError: another `route_noise`.
    """

    def __init__(
        self, d_model: int, d_inner: int, d_state: int, inner_rank: int, num_tokens: int, route_noise: str = "training",
        stable_sort: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stable_sort = stable_sort
        self.route_noise = one_of("route_noise", route_noise, ROUTE_NOISES)
        self.embeddingB = nn.Embedding(num_tokens, inner_rank)
        nn.init.uniform_(self.embeddingB.weight, -1 / num_tokens, 1 / num_tokens)
        self.in_proj = nn.Sequential(nn.Conv2d(d_model, d_inner, 1))
        self.CPE = nn.Sequential(nn.Conv2d(d_inner, d_inner, 3, padding=1, groups=d_inner))
        self.route = nn.Sequential(
            nn.Linear(d_model, d_model // 3), nn.GELU(), nn.Linear(d_model // 3, num_tokens), nn.LogSoftmax(-1)
        )
        self.selectiveScan = PromptedScan(d_inner, d_state)
        self.out_norm = nn.LayerNorm(d_inner)
        self.out_proj = nn.Linear(d_inner, d_model)

    def forward(self, x_BHWC: Tensor, table: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, H, W, C) to the same.

        Args:
            table: (inner_rank, N), the layer's half of the prompts.
            noise: (B, L, T) to add to the class logits instead of what `route_noise` says.
        """
        y_BLD = self.selectiveScan(*self._before_scan(x_BHWC, table, noise))
        y_BLD = wide_layer_norm(self.out_norm, y_BLD).to(self.out_proj.weight.dtype)
        return self.out_proj(y_BLD).to(x_BHWC.dtype).view(x_BHWC.shape)

    def scan_inputs(self, x_BHWC: Tensor, table: Tensor, noise: Tensor | None = None) -> ScanInputs:
        """What `forward` would scan with, sorted by class; `order` is each image's own, (B, 1, L)."""
        return self.selectiveScan.scan_inputs(*self._before_scan(x_BHWC, table, noise))

    def _before_scan(self, x_BHWC: Tensor, table: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor, Orders]:
        """The scan's input (B, L, D), the prompts (B, L, N) and the order."""
        prompt_BLN, classes_BL = self._prompts(x_BHWC.flatten(1, 2), self.embeddingB.weight @ table, noise)
        v_BDHW = self.in_proj(x_BHWC.permute(0, 3, 1, 2))
        v_BDHW = v_BDHW * self.CPE(v_BDHW).sigmoid()
        # Export knows no other sort than a stable one.
        orders = orders_from_scores(classes_BL, stable=self.stable_sort or torch.compiler.is_exporting())
        return v_BDHW.permute(0, 2, 3, 1).flatten(1, 2), prompt_BLN, orders

    def _prompts(self, x_BLC: Tensor, prompts_TN: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """The prompt of every pixel's class, and the class."""
        logits_BLT = self.route(x_BLC)
        if noise is None and (self.route_noise == "always" or (self.route_noise == "training" and self.training)):
            noise = -torch.empty_like(logits_BLT).exponential_().log()  # Gumbel
        if noise is not None:
            logits_BLT = logits_BLT + noise
        classes_BL = logits_BLT.argmax(-1)
        prompt_BLN = F.embedding(classes_BL, prompts_TN)
        if torch.is_grad_enabled() and not torch.compiler.is_exporting():
            # The straight-through estimate: a gradient as if by the soft classes, and no value.
            soft_BLT = logits_BLT.softmax(-1)
            prompt_BLN = prompt_BLN + (soft_BLT - soft_BLT.detach()) @ prompts_TN
        return prompt_BLN, classes_BL


class PromptedScan(nn.Module):
    """One selective scan in a given order, C raised by prompts. Parameters as SS2D's, with one direction."""

    def __init__(self, channels: int, d_state: int) -> None:
        super().__init__()
        self.d_state, self.dt_rank = d_state, step_rank("auto", channels)
        bound = channels**-0.5
        self.x_proj_weight = nn.Parameter(torch.empty(1, self.dt_rank + 2 * d_state, channels).uniform_(-bound, bound))
        weight, bias, rates = start_of_steps("v0", 1, channels, self.dt_rank, d_state)
        self.dt_projs_weight, self.dt_projs_bias = nn.Parameter(weight), nn.Parameter(bias)
        self.A_logs, self.Ds = nn.Parameter(rates), nn.Parameter(torch.ones(channels))

    def forward(self, x_BLD: Tensor, prompt_BLN: Tensor, orders: Orders) -> Tensor:
        """(B, L, D) to the same, every pixel's result at the pixel."""
        if x_BLD.dtype == torch.float16:
            x_BLD = x_BLD.float()  # the result may pass float16's range before it is normed
        given = self._arguments(x_BLD, prompt_BLN, orders)
        return ordered_scan(**given, order=orders.indices, rows="tokens")

    def scan_inputs(self, x_BLD: Tensor, prompt_BLN: Tensor, orders: Orders) -> ScanInputs:
        """What `forward` scans, in the order in which it reads it."""
        given = self._arguments(x_BLD, prompt_BLN, orders)
        delta_BLD = F.linear(given["dt"][:, :, 0], self.dt_projs_weight[0]).float() + self.dt_projs_bias[0].float()
        per_pixel = (x_BLD, F.softplus(delta_BLD), given["B"][:, :, 0], given["C"][:, :, 0])
        u, delta, B, C = (gather_tokens(t, orders).transpose(2, 3) for t in per_pixel)
        return ScanInputs(u, delta, given["A"], B, C, given["D"], None, orders.indices)

    def _arguments(self, x_BLD: Tensor, prompt_BLN: Tensor, orders: Orders) -> dict:
        """Arguments of `ordered_scan`, step sizes, B and C a pixel.

        `prompt_BLN` is read by step, not by pixel: step l of the sorted sequence gets the prompt of pixel l, whichever
        pixel it reads. The published networks are trained so.
        """
        p_BLP = F.linear(x_BLD, self.x_proj_weight[0].to(x_BLD.dtype))
        dt_BLR, B_BLN, C_BLN = p_BLP.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        C_BLN = C_BLN + return_tokens(prompt_BLN.unsqueeze(1), orders).squeeze(1)
        A_logs = self.A_logs if self.A_logs.dtype == torch.float64 else self.A_logs.float()
        dt, B, C = (t.unsqueeze(2) for t in (dt_BLR, B_BLN, C_BLN))
        return dict(
            x=x_BLD, dt=dt, dt_weight=self.dt_projs_weight, A=-A_logs.exp()[None], B=B, C=C, D=self.Ds[None],
            dt_bias=self.dt_projs_bias,
        )  # fmt: skip
