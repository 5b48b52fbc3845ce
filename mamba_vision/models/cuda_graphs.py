"""Forward and backward of a module replayed as CUDA graphs, so that a slow host no longer holds up the GPU.

A replay reads and writes the memory of its capture: inputs are copied in, results and gradients copied out, and
weights may change in place (as optimizers and `load_state_dict` do). Random numbers are drawn anew on the GPU.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten

from mamba_vision.scan_orders import hold_orders

WARM_UP = 2  # calls before a capture, in which libraries choose algorithms and kernels are compiled


def cuda_graphed(module: nn.Module, inference: int = 4, training: int = 1) -> nn.Module:
    """The same module; its calls on a GPU replay CUDA graphs from now on, one for each shape of the inputs.

    A call with a new shape, dtype, autocast or training mode captures one, until there are as many as asked for; calls
    beyond that, with keyword arguments or with other arguments than tensors run as usual. A graph keeps the memory that
    the call needs. Attributes that are switched after a capture have no effect on it: call this function again.

    With gradients, forward and backward are a graph each, and every call must be followed by its backward pass before
    the next. Accumulated gradients and DistributedDataParallel around the module (before or after) are fine.

    Args:
        inference: most graphs of calls without gradients; 0 for none.
        training: most graphs of calls with gradients; 0 for none.

    Raises:
        ValueError: the module is not on a GPU, or has parameters in parts (FSDP) or norms that talk to other processes.
    """
    without_cuda_graphs(module)
    tensors = [*module.parameters(), *module.buffers()]
    devices = {str(t.device) for t in tensors}
    if len(devices) != 1 or not tensors[0].is_cuda:
        found = ", ".join(sorted(devices)) or "no parameters"
        raise ValueError(f"module: found {found}, expected all parameters on one CUDA device for CUDA graphs")
    if any(hasattr(t, "device_mesh") for t in tensors):
        raise ValueError("module: found parameters in parts (FSDP), expected whole ones for CUDA graphs")
    if any(isinstance(m, nn.SyncBatchNorm) for m in module.modules()):
        raise ValueError("module: found SyncBatchNorm, expected norms of one process for CUDA graphs")
    module.forward = _Graphs(module, inference, training)
    return module


def without_cuda_graphs(module: nn.Module) -> nn.Module:
    """The same module, its graphs and their memory given up."""
    graphs = module.__dict__.get("forward")
    if isinstance(graphs, _Graphs):
        graphs.found.clear()  # the two know each other, and the memory would wait for Python's collector
        del module.forward
    return module


class _Graphs:
    """Stands in for a module's forward: finds the graph of a call, captures it, or runs the call as usual."""

    def __init__(self, module: nn.Module, inference: int, training: int) -> None:
        self.module, self.eager = module, module.forward
        self.most = {False: inference, True: training}
        self.places: list[int] = []
        self._forget()

    def _forget(self) -> None:
        self.found: dict[bool, dict[tuple, _Graph]] = {False: {}, True: {}}
        self.pools = {False: torch.cuda.graph_pool_handle(), True: torch.cuda.graph_pool_handle()}
        self.pending: object | None = None  # the forward pass whose backward pass may be replayed
        self.parameters = list(self.module.parameters())

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        tensors = inputs and not options and all(isinstance(x, Tensor) and x.is_cuda for x in inputs)
        if not tensors or torch.compiler.is_compiling() or torch.cuda.is_current_stream_capturing():
            return self.eager(*inputs, **options)
        places = [p.data_ptr() if p.requires_grad else -p.data_ptr() for p in self.parameters]
        if places != self.places:  # moved, frozen or thawed
            self._forget()
            self.places = places
        watched = torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *self.parameters))
        amp = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        key = (amp, self.module.training, *((x.shape, x.stride(), x.dtype, x.requires_grad) for x in inputs))
        graph = self.found[watched].get(key)
        if graph is None:
            if len(self.found[watched]) >= self.most[watched]:
                return self.eager(*inputs)
            graph = self.found[watched][key] = _Graph(self, inputs, watched, amp)
        return graph(inputs)

    def __deepcopy__(self, memo: dict) -> "_Graphs":
        raise TypeError("a module with CUDA graphs cannot be copied: call without_cuda_graphs(module) first")

    __reduce__ = __deepcopy__


class _Graph:
    """One captured call."""

    def __init__(self, owner: _Graphs, inputs: Sequence[Tensor], watched: bool, amp: torch.dtype | None) -> None:
        self.owner = owner
        self.name = type(owner.module).__name__
        self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        buffers = list(owner.module.buffers())
        # the cache of cast weights would let a graph read casts that were made outside of it, and never again
        autocast = torch.autocast("cuda", dtype=amp or torch.bfloat16, enabled=amp is not None, cache_enabled=False)
        with (
            torch.cuda.device(inputs[0].device),
            torch.inference_mode(False),
            torch.set_grad_enabled(watched),
            autocast,
        ):
            self.inputs = [torch.empty_like(x).copy_(x.detach()).requires_grad_(x.requires_grad) for x in inputs]
            self.parameters = [p for p in owner.parameters if p.requires_grad]
            self.eager = _Aliased(owner.module, owner.eager)
            self.leaves = [x for x in self.inputs if x.requires_grad] + self.eager.aliases
            before = [b.clone() for b in buffers]
            self._warm_up(watched)
            for buffer, value in zip(buffers, before):
                buffer.data.copy_(value)
            try:
                # the graph reads the orders' memory whatever their cache forgets
                with _left_when_it_fails(), hold_orders() as self.orders:
                    self._capture(watched)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                why = f"{self.name} cannot be captured as a CUDA graph; run it without. {reason}"
                raise RuntimeError(why) from error

    def _warm_up(self, watched: bool) -> None:
        """Calls that count for nothing, on a stream of their own as a capture is.

        Raises:
            ValueError: the module draws random numbers on the host.
        """
        drawn = _host_random_state()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                outputs = tree_flatten(self.eager(*self.inputs))[0]
                wanted = [o for o in outputs if isinstance(o, Tensor) and o.requires_grad]
                if wanted:
                    grads = [torch.zeros_like(o) for o in wanted]
                    torch.autograd.grad(wanted, self.leaves, grads, allow_unused=True)
                    del grads
                del outputs, wanted
        torch.cuda.current_stream().wait_stream(stream)
        if _host_random_state() != drawn:
            raise ValueError(f"{self.name} draws random numbers on the host, which a CUDA graph would repeat for ever")

    def _capture(self, watched: bool) -> None:
        pool = self.owner.pools[watched]
        # other threads (of data loaders, of NCCL) may go on calling CUDA
        with torch.cuda.graph(self.forward, pool=pool, capture_error_mode="thread_local"):
            outputs = self.eager(*self.inputs)
        flat, self.structure = tree_flatten(outputs)
        if not all(isinstance(o, Tensor) for o in flat):
            kinds = ", ".join(sorted({type(o).__name__ for o in flat}))
            raise ValueError(f"{self.name} returned {kinds}, expected tensors alone for CUDA graphs")
        wanted = [o for o in flat if o.requires_grad]
        self.grad_outputs = [torch.zeros_like(o) if o.requires_grad else None for o in flat]
        self.grads: list[Tensor | None] = []
        if wanted:
            given = [g for g in self.grad_outputs if g is not None]
            with torch.cuda.graph(self.backward, pool=pool, capture_error_mode="thread_local"):
                self.grads = list(torch.autograd.grad(wanted, self.leaves, given, allow_unused=True))
        self.outputs = [o.detach() for o in flat]

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        if self.grads:
            flat = _Replay.apply(self, len(inputs), *inputs, *self.parameters)
        else:
            with torch.no_grad():
                flat = self.replay_forward(inputs)
        return tree_unflatten(list(flat), self.structure)

    def replay_forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        for own, given in zip(self.inputs, inputs):
            own.detach().copy_(given)
        self.forward.replay()
        return tuple(o.clone() for o in self.outputs)

    def replay_backward(self, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Gradients of the leaves, in memory of their own: they may be kept or added to while the graph runs again."""
        for own, given in zip(self.grad_outputs, grads):
            if own is not None:
                own.zero_() if given is None else own.copy_(given)
        self.backward.replay()
        copies = iter(torch._foreach_mul([g for g in self.grads if g is not None], 1.0))
        return [None if g is None else next(copies) for g in self.grads]


class _Aliased:
    """A module's forward over leaves that share its parameters' memory.

    DistributedDataParallel keeps the node that collects a parameter's gradient, and with it the stream on which the
    parameter was wrapped. A backward pass to the parameter itself would wait for that stream, which ends a capture.
    """

    def __init__(self, module: nn.Module, eager: Callable) -> None:
        self.call = _Call(module, eager)
        watched = {name: p for name, p in self.call.named_parameters() if p.requires_grad}
        self.by_name = {name: p.detach().requires_grad_() for name, p in watched.items()}
        self.aliases = list(self.by_name.values())

    def __call__(self, *inputs: Tensor) -> Any:
        return torch.func.functional_call(self.call, self.by_name, inputs)


class _Call(nn.Module):
    """A module whose forward is `eager`, as the module's own is replaced by graphs."""

    def __init__(self, module: nn.Module, eager: Callable) -> None:
        super().__init__()
        self.module, self.eager = module, eager

    def forward(self, *inputs: Tensor) -> Any:
        return self.eager(*inputs)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx, graph: _Graph, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.graph, ctx.inputs = graph, [t.requires_grad for t in tensors[:count]]
        ctx.set_materialize_grads(False)
        ctx.turn = graph.owner.pending = object()
        outputs = graph.replay_forward(tensors[:count])
        ctx.mark_non_differentiable(*(o for o, g in zip(outputs, graph.grad_outputs) if g is None))
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        graph = ctx.graph
        if graph.owner.pending is not ctx.turn:
            raise RuntimeError(
                f"{graph.name} was called again before the backward pass of this call, or backward ran twice: "
                "its CUDA graph keeps one call's activations; run it without CUDA graphs"
            )
        graph.owner.pending = None
        found = iter(graph.replay_backward(grads))
        of_inputs = [next(found) if wanted else None for wanted in ctx.inputs]
        return (None, None, *of_inputs, *found)


@contextmanager
def _left_when_it_fails() -> Iterator[None]:
    """Undoes what a failed capture may leave behind: its stream as the current one (before PyTorch 2.12 or so), and
    random numbers on the GPU refused from then on ("Offset increment outside graph capture")."""
    stream = torch.cuda.current_stream()
    try:
        yield
    except BaseException:
        torch.cuda.set_stream(stream)
        numbers = torch.cuda.default_generators[stream.device_index]
        numbers.graphsafe_set_state(numbers.clone_state())
        raise


def _host_random_state() -> tuple:
    numbers = np.random.get_state()
    return random.getstate(), torch.get_rng_state().numpy().tobytes(), numbers[1].tobytes(), numbers[2]
