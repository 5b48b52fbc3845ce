"""A graphed module says what it says without graphs, forward and backward, and refuses what a graph would get wrong."""

import pytest
import torch
from torch import nn

from mamba_vision.models.cuda_graphs import _Aliased, cuda_graphed, without_cuda_graphs
from mamba_vision.registry import MODELS


def test_refused_on_a_cpu():
    with pytest.raises(ValueError, match="found cpu, expected all parameters on one CUDA device"):
        cuda_graphed(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="found no parameters"):
        cuda_graphed(nn.ReLU())
    assert without_cuda_graphs(nn.Linear(2, 2))(torch.ones(1, 2)).shape == (1, 2)


def pair(config: dict) -> tuple[nn.Module, nn.Module]:
    """Two models with the same weights, on the GPU."""
    eager, graphed = (MODELS.build(config).cuda() for _ in range(2))
    graphed.load_state_dict(eager.state_dict())
    return eager, graphed


def tensors(output) -> list[torch.Tensor]:
    return list(output) if isinstance(output, (tuple, list)) else [output]


def close(got: torch.Tensor, want: torch.Tensor, limit: float) -> None:
    error = float((got.double() - want.double()).norm() / want.double().norm().clamp(min=1e-6))
    assert error <= limit, f"relative error {error}"


VIM = dict(type="mamba_vision.Vim", arch="test", img_size=64)
VMAMBA = dict(type="mamba_vision.VMamba", arch="test")
UMAMBA = dict(type="mamba_vision.UMamba", arch="tiny", in_channels=1, num_classes=3)
SEGMAMBA = dict(type="mamba_vision.SegMamba", arch="tiny")
CASES = [(VIM, (2, 3, 64, 64)), (VMAMBA, (2, 3, 64, 64)), (UMAMBA, (1, 1, 32, 32, 32)), (SEGMAMBA, (1, 1, 32, 32, 32))]


@pytest.mark.gpu
@pytest.mark.parametrize("config, size", CASES, ids=["vim", "vmamba", "umamba", "segmamba"])
@pytest.mark.parametrize("amp", [False, True])
def test_graphs_say_what_eager_calls_say(config, size, amp, monkeypatch):
    # a capture may choose another algorithm for a convolution, and TF32's ten bits would show it
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    eager, graphed = pair(config)
    cuda_graphed(graphed, inference=1, training=1)
    limit = 3e-2 if amp else 1e-4
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=amp):
        for model in (eager.eval(), graphed.eval()):
            for parameter in model.parameters():  # the graph sees weights that change in place
                parameter.data.mul_(1.01)
        for _ in range(3):
            x = torch.randn(size, device="cuda")
            with torch.inference_mode():
                for got, want in zip(tensors(graphed(x)), tensors(eager(x)), strict=True):
                    close(got, want, limit)
        one_more = torch.randn(size[0] + 1, *size[1:], device="cuda")  # beyond the number of graphs: as usual
        with torch.no_grad():
            close(tensors(graphed(one_more))[0], tensors(eager(one_more))[0], limit)
    eager.train(), graphed.train()
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-3) for model in (eager, graphed)]
    for _ in range(3):
        graphed.load_state_dict(eager.state_dict())  # seen by the graph, and rounding does not grow over steps
        for _ in range(2):  # gradients are accumulated over two calls
            x = torch.randn(size, device="cuda")
            for model in (eager, graphed):
                with torch.autocast("cuda", dtype=torch.bfloat16, enabled=amp):
                    loss = sum(y.float().square().mean() for y in tensors(model(x)))
                loss.backward()
        # all gradients as one vector: that of a bias before a norm is nothing but rounding
        both = [(a.grad, b.grad) for a, b in zip(graphed.parameters(), eager.parameters(), strict=True)]
        assert all((got is None) == (want is None) for got, want in both)
        got, want = (torch.cat([g.flatten() for g in side if g is not None]) for side in zip(*both, strict=True))
        close(got, want, 4 * limit)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def test_leaves_of_their_own_share_memory_and_gradients():
    """What a capture differentiates: the module's forward, with every gradient, and never the parameter itself."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight  # tied
    module[1].bias.requires_grad_(False)
    aliased = _Aliased(module, module.forward)
    x = torch.randn(3, 4)
    want = torch.autograd.grad(module(x).square().sum(), [module[0].weight, module[0].bias])
    got = torch.autograd.grad(aliased(x).square().sum(), aliased.aliases)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    module[0].weight.data.mul_(2)
    assert torch.equal(aliased(x), module(x))
    assert all(a is not p and a.data_ptr() == p.data_ptr() for a, p in zip(aliased.aliases, module.parameters()))


@pytest.mark.gpu
def test_random_numbers_differ_and_statistics_are_kept():
    module = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)).cuda()
    cuda_graphed(module)
    x = torch.randn(64, 8, device="cuda", requires_grad=True)
    first, second = (module(x).detach() for _ in range(2))
    assert not torch.equal(first == 0, second == 0)
    assert int(module[1].num_batches_tracked) == 2
    module(x).sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape


@pytest.mark.gpu
def test_refused_where_a_graph_would_be_wrong():
    module = cuda_graphed(nn.Linear(8, 8).cuda())
    x = torch.randn(4, 8, device="cuda")
    first = module(x).sum()
    module(x)
    with pytest.raises(RuntimeError, match="called again before the backward pass"):
        first.backward()
    total = module(x).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="or backward ran twice"):
        total.backward()

    class Lottery(nn.Linear):
        def forward(self, x):
            return super().forward(x) if float(torch.rand(())) < 2 else x

    class Waiting(nn.Linear):
        def forward(self, x):
            return super().forward(x) * float(x.sum())

    with pytest.raises(ValueError, match="Lottery draws random numbers on the host"):
        cuda_graphed(Lottery(8, 8).cuda())(x)
    stream = torch.cuda.current_stream()
    with pytest.raises(RuntimeError, match="Waiting cannot be captured as a CUDA graph"):
        cuda_graphed(Waiting(8, 8).cuda())(x)
    assert torch.cuda.current_stream() == stream  # whoever goes on without graphs can
    assert torch.randn(4, device="cuda").isfinite().all()


def _train_in_two(rank: int, graphed: bool, port: int, path: str) -> None:
    torch.backends.cudnn.allow_tf32 = False  # ten bits would show which algorithm a convolution got
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = MODELS.build(VMAMBA).cuda()
    wrapped = nn.parallel.DistributedDataParallel(model, device_ids=[0])
    if graphed:
        cuda_graphed(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    torch.manual_seed(rank)
    for _ in range(3):
        sum(y.square().mean() for y in wrapped(torch.randn(2, 3, 64, 64, device="cuda"))).backward()
        optimizer.step()
        optimizer.zero_grad()
    if rank == 0:
        torch.save(model.state_dict(), path)
    torch.distributed.destroy_process_group()


@pytest.mark.gpu
def test_gradients_are_averaged_over_processes(tmp_path):
    for graphed, port in ((False, 29611), (True, 29612)):
        torch.multiprocessing.spawn(_train_in_two, (graphed, port, str(tmp_path / f"{graphed}.pth")), nprocs=2)
    want, got = (torch.load(tmp_path / f"{graphed}.pth", weights_only=True) for graphed in (False, True))
    for name, value in want.items():
        close(got[name], value, 1e-4)
