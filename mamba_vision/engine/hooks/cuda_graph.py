"""Training whose network is replayed as CUDA graphs."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mamba_vision.models.cuda_graphs import cuda_graphed, without_cuda_graphs
from mamba_vision.registry import HOOKS

PARTS = ("network", "backbone")  # what our models and MMEngine's call the part that takes the time


@HOOKS.register_module()
class CudaGraphHook(Hook):
    """Replays forward and backward of a part of the model, so that a slow host no longer holds up the GPU.

    Losses, heads and the optimizer run as usual, and so do batches of another size than the first, and validation.
    Mixed precision, dropout and drop path, accumulated gradients and DistributedDataParallel are fine. The part must
    read tensors alone and be called once between two backward passes; see `cuda_graphed`.

    Args:
        part: attribute of the model to replay; None: the first of `PARTS` that it has.
        shapes: most shapes of a batch that get a graph, each with memory of its own.
    """

    def __init__(self, part: str | None = None, shapes: int = 1) -> None:
        self.part, self.shapes = part, shapes
        self.module: nn.Module | None = None

    def before_train(self, runner: Runner) -> None:
        """Raises:
        ValueError: the model has no such part, or one that CUDA graphs can't serve.
        """
        model = runner.model
        if is_model_wrapper(model):
            if not isinstance(model, nn.parallel.DistributedDataParallel):
                raise ValueError(
                    f"CudaGraphHook: found {type(model).__name__}, expected DistributedDataParallel or none"
                )
            model = model.module
        names = PARTS if self.part is None else (self.part,)
        found = [part for name in names if isinstance(part := getattr(model, name, None), nn.Module)]
        if not found:
            raise ValueError(f"CudaGraphHook: {type(model).__name__} has no part called {' or '.join(names)}")
        self.module = cuda_graphed(found[0], inference=0, training=self.shapes)

    def after_train(self, runner: Runner) -> None:
        """Give the memory back."""
        if self.module is not None:
            without_cuda_graphs(self.module)
