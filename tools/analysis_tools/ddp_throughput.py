"""Training throughput on one process and on several, and their ratio: what a second GPU is worth.

    python tools/analysis_tools/ddp_throughput.py vmamba_tiny --processes 1 2 --batch-size 128
    python tools/analysis_tools/ddp_throughput.py vim_test --processes 1 2 --batch-size 4 --size 64 --iterations 5

Each number of processes is one torchrun of its own: forward, backward and AdamW step of a classifier on random
pictures, wrapped in DistributedDataParallel, NCCL on GPUs and gloo on a CPU. A GPU a process, batch size a process.
Prints pictures per second, the median over iterations, and the ratio to the first row.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name of mamba_vision.list_models()")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="how many, one run each (default 1 2)")
    parser.add_argument("--batch-size", type=int, default=128, help="pictures a process and step (default 128)")
    parser.add_argument("--size", type=int, default=224, help="height and width of the pictures (default 224)")
    parser.add_argument("--iterations", type=int, default=30, help="measured steps, after 10 to warm up (default 30)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def measure(args: argparse.Namespace) -> None:
    """One process of a torchrun: train, and let rank 0 write its seconds a step."""
    import torch
    import torch.distributed as dist

    from mamba_vision.apis.models import get_model

    gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if gpu else "gloo")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    torch.manual_seed(dist.get_rank())
    model = get_model(args.model, num_classes=1000).to(device).train()

    class Loss(torch.nn.Module):
        """The classifier's cross-entropy, so that DistributedDataParallel sees one forward."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pictures: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            logits = self.model(pictures)
            logits = logits[-1] if isinstance(logits, (tuple, list)) else logits
            return torch.nn.functional.cross_entropy(logits.float(), labels)

    wrapped = torch.nn.parallel.DistributedDataParallel(Loss(), device_ids=[device.index] if gpu else None)
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=1e-4)
    pictures = torch.randn(args.batch_size, 3, args.size, args.size, device=device)
    labels = torch.randint(1000, (args.batch_size,), device=device)
    seconds = []
    for _ in range(args.iterations + 10):
        if gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16):
            loss = wrapped(pictures, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    if dist.get_rank() == 0:
        args.worker.write_text(json.dumps(statistics.median(seconds[10:])))
    dist.destroy_process_group()


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.worker:
        measure(args)
        return 0
    rows = []
    for processes in args.processes:
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "seconds.json"
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
                       __file__, args.model, f"--batch-size={args.batch_size}", f"--size={args.size}",
                       f"--iterations={args.iterations}", f"--worker={result}"]  # fmt: skip
            status = subprocess.run(command, check=False).returncode
            if status:
                return status
            step = json.loads(result.read_text())
        rows.append(
            {"processes": processes, "seconds_a_step": step, "pictures_a_second": args.batch_size * processes / step}
        )
        rows[-1]["ratio"] = rows[-1]["pictures_a_second"] / rows[0]["pictures_a_second"]
        print(f"{processes} process{'es' if processes > 1 else ''}: {rows[-1]['pictures_a_second']:.1f} pictures/s, "
              f"{step * 1e3:.1f} ms a step, ratio {rows[-1]['ratio']:.2f}", flush=True)  # fmt: skip
    if args.json:
        from mamba_vision.utils.atomic import write_json

        write_json(args.json, {"model": args.model, "batch_size": args.batch_size, "size": args.size, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
