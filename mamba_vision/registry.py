"""Registries: children of MMEngine's, scope `mamba_vision`, plus scan orders and mixers.

A config names a class as `mamba_vision.Name` from any OpenMMLab project, or as `Name` under
`default_scope = 'mamba_vision'`. `locations` are imported at the first look-up, so nothing has to be imported by hand.
"""

from mmengine import registry as mmengine_registry
from mmengine.registry import Registry

_SCOPE = "mamba_vision"


def _child(parent: str, *locations: str) -> Registry:
    """The child of MMEngine's registry `parent` whose classes live in these folders of the package."""
    root = getattr(mmengine_registry, parent)
    return Registry(root.name, parent=root, scope=_SCOPE, locations=[f"mamba_vision.{where}" for where in locations])


MODELS = _child("MODELS", "models")
DATASETS = _child("DATASETS", "datasets")
DATA_SAMPLERS = _child("DATA_SAMPLERS", "datasets")
TRANSFORMS = _child("TRANSFORMS", "datasets")
METRICS = _child("METRICS", "evaluation")
EVALUATOR = _child("EVALUATOR", "evaluation")
HOOKS = _child("HOOKS", "engine")
LOOPS = _child("LOOPS", "engine")
OPTIMIZERS = _child("OPTIMIZERS", "engine")
OPTIM_WRAPPERS = _child("OPTIM_WRAPPERS", "engine")
OPTIM_WRAPPER_CONSTRUCTORS = _child("OPTIM_WRAPPER_CONSTRUCTORS", "engine")
PARAM_SCHEDULERS = _child("PARAM_SCHEDULERS", "engine")
VISUALIZERS = _child("VISUALIZERS", "visualization")
VISBACKENDS = _child("VISBACKENDS", "visualization")
TASK_UTILS = _child("TASK_UTILS", "models")

SCAN_ORDERS = Registry("scan order", scope=_SCOPE, locations=["mamba_vision.scan_orders"])
MIXERS = Registry("mixer", scope=_SCOPE, locations=["mamba_vision.models.mixers"])
