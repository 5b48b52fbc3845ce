"""Mixed precision on a CPU, and an optimizer that leaves state space parameters undecayed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from mamba_vision.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS

UNDECAYED = ("A_log", "A_logs", "D", "Ds")


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """bfloat16 autocast on the CPU. MMEngine's AmpOptimWrapper wants an accelerator.

    bfloat16 has the range of float32, so losses are not scaled.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The forward pass of one iteration."""
        with super().optim_context(model), torch.autocast("cpu", dtype=torch.bfloat16):
            yield


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MambaOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor, with `decay_mult=0` for A_log and D of selective scans and for marked parameters.

    The decay of log(-A) pulls the time constants of a state space model towards one value, which its authors avoid by
    the mark `_no_weight_decay` (Gu and Dao, "Mamba", arXiv 2312.00752); MMEngine does not look at marks. Names given
    in `paramwise_cfg.custom_keys` keep what they say there.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """The optimizer wrapper over the parameters of `model`, in two groups, or one a parameter with options."""
        bare = getattr(model, "module", model)
        names = undecayed_parameters(bare)
        if not names:
            return super().__call__(bare)
        if self.paramwise_cfg:
            before = self.paramwise_cfg
            keys = {name: {"decay_mult": 0.0} for name in names} | before.get("custom_keys", {})
            self.paramwise_cfg = {**before, "custom_keys": keys}
            try:
                return super().__call__(bare)
            finally:
                self.paramwise_cfg = before
        parameters = {name: value for name, value in bare.named_parameters() if value.requires_grad}
        groups = [
            {"params": [value for name, value in parameters.items() if name not in names]},
            {"params": [value for name, value in parameters.items() if name in names], "weight_decay": 0.0},
        ]
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, "params": [group for group in groups if group["params"]]})
        wrapper = {"type": "OptimWrapper", **self.optim_wrapper_cfg}
        return OPTIM_WRAPPERS.build(wrapper, default_args={"optimizer": optimizer})


def undecayed_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters of `model` that weight decay leaves alone.

    Those called as in `UNDECAYED`, those marked `_no_weight_decay`, and those that a submodule's own
    `no_weight_decay()` lists.
    """
    listed = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if hasattr(module, "no_weight_decay")
        for name in module.no_weight_decay()
    }
    return [
        name
        for name, parameter in model.named_parameters()
        if name in listed or name.rpartition(".")[2] in UNDECAYED or getattr(parameter, "_no_weight_decay", False)
    ]
