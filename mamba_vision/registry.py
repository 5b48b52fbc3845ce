"""Registries: children of MMEngine's, scope `mamba_vision`, plus scan orders and mixers.

A config names a class as `mamba_vision.Name` from any OpenMMLab project, or as `Name` under
`default_scope = 'mamba_vision'`. `locations` are imported at the first look-up, so nothing has to be imported by hand.
"""

from inspect import signature

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
STRATEGIES = _child("STRATEGIES", "engine")
VISUALIZERS = _child("VISUALIZERS", "visualization")
VISBACKENDS = _child("VISBACKENDS", "visualization")
TASK_UTILS = _child("TASK_UTILS", "models")
WEIGHT_INITIALIZERS = _child("WEIGHT_INITIALIZERS", "checkpoints")


def _build_scan_order(spec: object, registry: Registry) -> object:
    """A scan order from its name, a dict of name and options, a list of orders (side by side), or an order as it is."""
    if isinstance(spec, str):
        spec = {"type": spec}
    if isinstance(spec, (list, tuple)):
        spec = {"type": "combined", "orders": spec}
    if not isinstance(spec, dict):
        if callable(spec) and not isinstance(spec, type):  # built already
            return spec
        raise ValueError(f"scan order: {spec!r}, expected a name, a dict with `type`, a list of them, or a scan order")
    order = spec.get("type")
    if isinstance(order, str):
        registry.import_from_location()
        found, names = registry.get(order), ", ".join(sorted(registry.module_dict))
        if found is None:
            raise ValueError(f"scan order: {order!r} is not known, expected one of {names}")
        order = found
    elif order is None:
        raise ValueError(f"scan order: {dict(spec)!r} has no `type`")
    options = {key: value for key, value in spec.items() if key not in ("type", "_scope_")}
    known = signature(order).parameters
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(
            f"scan order {spec['type']!r}: no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}"
        )
    return order(**options)


SCAN_ORDERS = Registry("scan order", scope=_SCOPE, locations=["mamba_vision.scan_orders"], build_func=_build_scan_order)
MIXERS = Registry("mixer", scope=_SCOPE, locations=["mamba_vision.models.mixers"])
