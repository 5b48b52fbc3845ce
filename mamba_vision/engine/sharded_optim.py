"""Clipping gradients that lie in parts over processes: MMEngine's wrappers would scale each part by its own norm."""

import math

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import distributed as dist

from mamba_vision.registry import OPTIM_WRAPPERS


class _ShardedClipping:
    """Clips by the norm of the whole gradient, over all processes."""

    def _clip_grad(self) -> None:
        if self.clip_func is not torch.nn.utils.clip_grad_norm_:
            super()._clip_grad()  # by value: each number for itself
            return
        parameters = [value for group in self.optimizer.param_groups for value in group["params"]]
        gradients = [value.grad for value in parameters if value.grad is not None]
        power, limit = float(self.clip_grad_kwargs.get("norm_type", 2.0)), float(self.clip_grad_kwargs["max_norm"])
        norms = [torch.linalg.vector_norm(gradient, power, dtype=torch.float32) for gradient in gradients]
        own = torch.stack(norms) if norms else torch.zeros(1, device=parameters[0].device)
        if math.isinf(power):
            total = own.max()
            dist.all_reduce(total, dist.ReduceOp.MAX)
        else:
            total = (own**power).sum()
            dist.all_reduce(total)
            total = total ** (1 / power)
        factor = (limit / (total + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor.to(gradient.dtype))
        self.message_hub.update_scalar(f"train/{self.grad_name}", float(total))


@OPTIM_WRAPPERS.register_module()
class ShardedOptimWrapper(_ShardedClipping, OptimWrapper):
    """MMEngine's OptimWrapper for FSDP, with `clip_grad` by the norm of the whole gradient."""


@OPTIM_WRAPPERS.register_module()
class ShardedAmpOptimWrapper(_ShardedClipping, AmpOptimWrapper):
    """MMEngine's AmpOptimWrapper for FSDP: clips as `ShardedOptimWrapper`, and scales losses alike in all processes."""

    def __init__(self, **options) -> None:
        super().__init__(**{"use_fsdp": True, **options})
