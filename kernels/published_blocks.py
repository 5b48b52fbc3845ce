"""Blocks of mamba_ssm: what stands around a mixer in its language models, and in code written for it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.kernels.add_norm import add_norm


class Block(nn.Module):
    """Add, norm, mix (mamba_ssm.modules.block): the residual is added before each norm and carried on beside.

    Args:
        dim: width of the tokens.
        mixer_cls: makes the mixer from dim.
        mlp_cls: makes a second, normed layer from dim; nn.Identity: none.
        norm_cls: makes the norms from dim: LayerNorm or RMSNorm.
        fused_add_norm: sum and norm in one kernel where there is one; the same numbers.
        residual_in_fp32: carry the residual in float32.
    """

    def __init__(
        self,
        dim: int,
        mixer_cls: Callable[[int], nn.Module],
        mlp_cls: Callable[[int], nn.Module] = nn.Identity,
        norm_cls: Callable[[int], nn.Module] = nn.LayerNorm,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
    ) -> None:
        super().__init__()
        self.residual_in_fp32, self.fused_add_norm = residual_in_fp32, fused_add_norm
        self.norm, self.mixer = norm_cls(dim), mixer_cls(dim)
        self.norm2, self.mlp = (None, None) if mlp_cls is nn.Identity else (norm_cls(dim), mlp_cls(dim))

    def forward(
        self, hidden_states: Tensor, residual: Tensor | None = None, inference_params: object | None = None, **mixer
    ) -> tuple[Tensor, Tensor]:
        """(batch, length, dim): the mixer's (or the MLP's) output and the residual, which lacks it yet.

        Args:
            inference_params, mixer: handed to the mixer.
        """
        hidden_states, residual = self._add_norm(self.norm, hidden_states, residual)
        hidden_states = self.mixer(hidden_states, inference_params=inference_params, **mixer)
        if self.mlp is not None:
            hidden_states, residual = self._add_norm(self.norm2, hidden_states, residual)
            hidden_states = self.mlp(hidden_states)
        return hidden_states, residual

    def allocate_inference_cache(self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **options):
        """The mixer's cache."""
        return self.mixer.allocate_inference_cache(batch_size, max_seqlen, dtype=dtype, **options)

    def _add_norm(self, norm: nn.Module, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.fused_add_norm:
            wide = hidden if residual is None else residual
            kind = "layer" if isinstance(norm, nn.LayerNorm) else "rms"
            kept = torch.promote_types(wide.dtype, torch.float32) if self.residual_in_fp32 else wide.dtype
            bias = getattr(norm, "bias", None)
            return add_norm(hidden, residual, norm.weight, bias, norm.eps, kind, residual_dtype=kept)
        residual = hidden if residual is None else hidden + residual
        hidden = norm(residual.to(norm.weight.dtype))
        return hidden, residual.float() if self.residual_in_fp32 and residual.dtype != torch.float64 else residual


class SimpleBlock(Block):
    """The `Block` of mamba_ssm.modules.mamba_simple (versions 1.x): without an MLP."""

    def __init__(
        self,
        dim: int,
        mixer_cls: Callable[[int], nn.Module],
        norm_cls: Callable[[int], nn.Module] = nn.LayerNorm,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
    ) -> None:
        super().__init__(dim, mixer_cls, nn.Identity, norm_cls, fused_add_norm, residual_in_fp32)


class GatedMLP(nn.Module):
    """mamba_ssm.modules.mlp: fc1 to twice the width, one half times the activation of the other, fc2.

    Args:
        in_features, hidden_features, out_features: widths; hidden by default 8/3 of in, rounded up to `multiple_of`.
        activation: of the second half.
        bias: of both layers.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        activation: Callable[[Tensor], Tensor] = F.silu,
        bias: bool = False,
        multiple_of: int = 128,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = int(8 * in_features / 3) if hidden_features is None else hidden_features
        hidden = -(-hidden // multiple_of) * multiple_of
        factory = {"bias": bias, "device": device, "dtype": dtype}
        self.fc1 = nn.Linear(in_features, 2 * hidden, **factory)
        self.activation = activation
        self.fc2 = nn.Linear(hidden, in_features if out_features is None else out_features, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        y, gate = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(y * self.activation(gate))


class GenerationMixin:
    """mamba_ssm.utils.generation: vision models' files import it beside the layers, and never generate text."""

    def generate(self, *arguments, **options):
        """Raises NotImplementedError."""
        raise NotImplementedError("generating text is not offered: install mamba_ssm itself for language models")


def load_config_hf(model_name: str) -> dict:
    """mamba_ssm.utils.hf: imported by the same files; raises NotImplementedError."""
    raise NotImplementedError(f"{model_name}: language models are not offered: install mamba_ssm itself for them")


def load_state_dict_hf(model_name: str, device: object = None, dtype: object = None) -> dict:
    """mamba_ssm.utils.hf: imported by the same files; raises NotImplementedError."""
    return load_config_hf(model_name)
