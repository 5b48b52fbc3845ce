"""One optimizer for a restoration network and one for the discriminator that it is trained against."""

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from torch import nn

from mamba_vision.registry import OPTIM_WRAPPER_CONSTRUCTORS

_PARTS = ("network", "discriminator")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class RestorerOptimWrapperConstructor:
    """Builds `network` and `discriminator`, the configs of two optimizer wrappers.

        optim_wrapper = dict(
            constructor="RestorerOptimWrapperConstructor",
            network=dict(optimizer=...),
            discriminator=dict(optimizer=...),
        )

    Raises:
        ValueError: other parts than these two.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        if set(optim_wrapper_cfg) != set(_PARTS) or paramwise_cfg:
            found = ", ".join([*optim_wrapper_cfg, *(["paramwise_cfg"] if paramwise_cfg else [])])
            raise ValueError(f"optim_wrapper: expected {' and '.join(_PARTS)}, found {found}")
        self.parts = dict(optim_wrapper_cfg)

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        model = model.module if is_model_wrapper(model) else model
        built: dict[str, OptimWrapper] = {
            name: build_optim_wrapper(getattr(model, name), dict(self.parts[name])) for name in _PARTS
        }
        return OptimWrapperDict(**built)
