"""What this installation runs on: versions, machine, and which backend each scan uses, with the reason.

    python tools/misc/print_env.py

Paste the output into a report of a problem.
"""

import argparse
import sys
from importlib.metadata import PackageNotFoundError, version

from mamba_vision.utils.tool_exit import run_tool

PACKAGES = (
    "mamba_vision", "torch", "torchvision", "triton", "numpy", "scipy", "onedl-mmengine", "onedl-mmcv",
    "onedl-mmsegmentation", "onedl-mmpretrain", "monai", "nibabel", "pydicom", "SimpleITK", "torchmetrics",
    "safetensors", "onnx", "onnxruntime",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Version of each package that we build on, 'not installed' where it is absent."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def backends() -> dict[str, str]:
    """'op on device' -> 'backend (reason)', for the CPU and every kind of accelerator here."""
    import torch

    from mamba_vision.kernels import BackendError, backend_for

    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append("cuda")
    if torch.backends.mps.is_available():
        devices.append("mps")
    found = {}
    for op in ("selective_scan", "ordered_scan", "causal_conv1d", "ssd"):
        for device in devices:
            try:
                choice = backend_for(torch.empty(1, device=device), op)
                found[f"{op} on {device}"] = f"{choice.name} ({choice.reason})"
            except (BackendError, ValueError) as error:
                found[f"{op} on {device}"] = f"none ({error})"
    return found


def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    from mmengine.utils.dl_utils import collect_env

    print("Backends")
    for where, backend in backends().items():
        print(f"  {where}: {backend}")
    print("Versions")
    for name, number in versions().items():
        print(f"  {name}: {number}")
    print("Machine")
    for name, value in collect_env().items():
        if name not in ("PyTorch compiling details", "PyTorch", "TorchVision", "MMEngine"):
            print(f"  {name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
