"""Parameters and FLOPs of a model, with its scans counted as the papers count them.

    python tools/analysis_tools/get_flops.py vmamba_tiny --shape 224 224
    python tools/analysis_tools/get_flops.py configs/vim/vim-tiny_upernet_4xb8-60k_ade20k-512x512.py --shape 512 512
    python tools/analysis_tools/get_flops.py segmamba_brats2023 --shape 128 128 128

MODEL is a configuration or a name of mamba_vision.list_models(). Nothing is computed, so any size takes a second.
"""

import argparse
import json
import logging
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="configuration file, or name of a model")
    parser.add_argument("--shape", type=int, nargs="+", metavar="N",
                        help="height and width, or depth, height and width; one number for equal sides (default: "
                             "what the model was published for)")  # fmt: skip
    parser.add_argument("--channels", type=int, help="channels of the input (default: those that the model takes)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    if args.shape and (len(args.shape) > 3 or min(args.shape) < 1):
        parser.error(f"--shape: expected 1 to 3 positive numbers, found {args.shape}")
    return args


def build_model(name: str):
    """The model of a configuration file or of a name, without weights, and the size that it was published for."""
    import torch

    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports(), torch.device("meta"):
        if name.endswith((".py", ".yml", ".yaml", ".json")) or Path(name).exists():
            from mamba_vision.apis.config_loading import load_config
            from mamba_vision.apis.example_inputs import usual_size
            from mamba_vision.apis.image_model import build_from_config

            cfg = load_config(name)
            if "network" in cfg.model:  # of a task: what else it needs, such as a plan, need not be there
                cfg.model = cfg.model.network
                cfg.pop("data_preprocessor", None)
            model = build_from_config(cfg)
            return model, usual_size(model)
        from mamba_vision.apis.example_inputs import published_size
        from mamba_vision.apis.model_names import find_variant
        from mamba_vision.apis.models import get_model

        model = get_model(name)
        return model, published_size(find_variant(name), model)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        logging.disable(logging.INFO)  # of MMEngine, about training
        model, size = build_model(args.model)
        from mamba_vision.apis.complexity import CONVENTION, complexity
        from mamba_vision.apis.example_inputs import example_inputs, first_convolution

        size = tuple(args.shape) if args.shape else size
        if len(size) == 1:
            size *= len(first_convolution(model).kernel_size)
        inputs = example_inputs(model, size, args.channels)
        cost = complexity(model, *inputs)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        logging.disable(logging.NOTSET)
    if args.json:
        report = {"model": args.model, "input": list(inputs[0].shape), "parameters": cost.parameters}
        print(json.dumps({**report, "multiply_adds": cost.multiply_adds, "scan": cost.scan, "flops": cost.flops}))
        return 0
    shape = " x ".join(str(side) for side in inputs[0].shape[1:])
    print(f"{args.model}, {type(model).__name__}, one input of {shape}")
    print(f"  parameters     {cost.parameters:>20,}")
    for name, value in (("multiply-adds", cost.multiply_adds), ("scan", cost.scan), ("FLOPs", cost.flops)):
        print(f"  {name:<15}{value:>20,}   {value / 1e9:.2f} G")
    print(CONVENTION)
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
