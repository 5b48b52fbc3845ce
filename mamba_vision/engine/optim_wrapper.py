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
            # One group a parameter, then. MMEngine's custom keys are parts of names, so that a key for "D" would also
            # catch "Dense": the groups are corrected afterwards instead.
            wrapper = super().__call__(bare)
            keys = [key for key, rule in self.paramwise_cfg.get("custom_keys", {}).items() if "decay_mult" in rule]
            chosen = {
                id(value)
                for name, value in bare.named_parameters()
                if name in names and not any(k in name for k in keys)
            }
            for group in wrapper.optimizer.param_groups:
                if all(id(value) in chosen for value in group["params"]):
                    group["weight_decay"] = 0.0
            return wrapper
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
