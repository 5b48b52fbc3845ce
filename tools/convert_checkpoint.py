"""Turn a published or trained checkpoint into a plain state dict that every loader takes.

    python tools/convert_checkpoint.py checkpoint_final.pth umamba.safetensors \\
        --model UMamba --options arch=abdomen_ct placement=enc

The weights are found in the usual wrappers (nnU-Net, MMEngine, Lightning, timm-like, DataParallel, torch.compile), read
without running anything that is in the file, renamed to this toolkit's names and checked, name by name and shape by
shape, against the model. Without --model and --config they are only unwrapped. OUT is .pth or .safetensors.
"""

import argparse
import ast
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool

SUFFIXES = (".pth", ".safetensors")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", metavar="IN", help="the file to read, or its http(s) address")
    parser.add_argument("out", type=Path, metavar="OUT", help="the file to write, .pth or .safetensors")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", metavar="NAME", help="the model to check against, by its registered name: UMamba")
    model.add_argument("--config", type=Path, help="a config file whose model to check against")
    parser.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="settings of --model: arch=tiny")
    parser.add_argument("--part", metavar="NAME", help="the part of --config's model that IN holds: network, backbone")
    parser.add_argument("--prefix", default="", help="take only the names in IN that begin so, without it")
    parser.add_argument("--ema", action="store_true", help="take the moving average stored beside the weights")
    args = parser.parse_args()
    if args.out.suffix not in SUFFIXES:
        parser.error(f"OUT must end in {' or '.join(SUFFIXES)}, found {args.out}")
    if args.options and not args.model:
        parser.error("--options are settings of --model; give that too")
    if args.part and not args.config:
        parser.error("--part names a part of --config's model; give that too")
    return args


def parse_option(text: str) -> tuple[str, object]:
    """('features', [8, 16]) from 'features=[8,16]'; what is no Python literal is a string."""
    key, _, value = text.partition("=")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def build_model(args: argparse.Namespace):
    """The model that the file should fit, or None."""
    if not (args.model or args.config):
        return None
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mamba_vision.registry import MODELS
    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        MODELS.import_from_location()
    if args.model:
        init_default_scope("mamba_vision")
        return MODELS.build({"type": args.model, **dict(map(parse_option, args.options))})
    config = Config.fromfile(args.config)
    init_default_scope(config.get("default_scope", "mamba_vision"))
    config = config.model
    if args.part:
        if args.part not in config:
            raise ValueError(f"{args.config}: model has no part {args.part!r}; it has {', '.join(config)}")
        config = config[args.part]
    return MODELS.build(config)


def convert(args: argparse.Namespace) -> None:
    from mamba_vision.checkpoints import find_state_dict, load_file, load_published, save_checkpoint

    model = build_model(args)
    if model is None:
        state = find_state_dict(load_file(args.checkpoint), ema=args.ema, source=f"checkpoint {args.checkpoint}")
        state = {name.removeprefix(args.prefix): v for name, v in state.items() if name.startswith(args.prefix)}
        if not state:
            raise ValueError(f"checkpoint {args.checkpoint} has no name that begins with {args.prefix!r}")
    else:
        report = load_published(model, args.checkpoint, prefix=args.prefix, ema=args.ema)
        for theirs, ours in report.renamed.items():
            print(f"renamed  {theirs}  ->  {ours}")
        if report.ignored:
            print(f"ignored  {len(report.ignored)} second names of the same tensors, such as {report.ignored[0]}")
        before = f"{args.part}." if args.part else ""
        state = {before + name: value for name, value in model.state_dict().items()}
    save_checkpoint(args.out, state, meta={"converted_from": Path(str(args.checkpoint)).name})
    numbers = sum(value.numel() for value in state.values())
    print(f"{args.out}: {len(state)} tensors, {numbers / 1e6:.2f} M numbers")


def main() -> None:
    args = parse_args()
    try:
        convert(args)
    except (ValueError, OSError, KeyError, TypeError) as error:
        # KeyError and TypeError: an unregistered name or an unknown setting, whose text says which
        sys.exit(f"error: {error.args[0] if isinstance(error, KeyError) else error}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
