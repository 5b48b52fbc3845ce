"""Layer-wise learning rates for every model with a backbone, segmentors too."""

from functools import partial
from typing import Any

from torch import nn

from mamba_vision.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mamba_vision.utils.quiet import quiet_imports

with quiet_imports():
    from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(LearningRateDecayOptimWrapperConstructor):
    """MMPretrain's constructor, which multiplies the learning rate by `paramwise_cfg.layer_decay_rate` a layer down.

    MMPretrain's asks the whole model for the depth of a parameter, which its classifiers know; MMSegmentation's models
    don't. Here the backbone is asked (`get_layer_depth`); what is not the backbone's has the full rate.

    Raises:
        ValueError: neither the model nor its backbone knows depths.
    """

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = "", **options: Any) -> None:
        """The groups of one module and all inside it.

        Raises:
            ValueError: the backbone does not say how deep its layers lie.
        """
        if not prefix and "get_layer_depth" not in options and not hasattr(module, "get_layer_depth"):
            backbone = getattr(module, "backbone", None)
            if not hasattr(backbone, "get_layer_depth"):
                raise ValueError(
                    f"optim_wrapper.constructor: {type(backbone or module).__name__} has no get_layer_depth, which "
                    "layer-wise decay needs"
                )
            options["get_layer_depth"] = partial(backbone.get_layer_depth, prefix="backbone.")
        super().add_params(params, module, prefix, **options)
