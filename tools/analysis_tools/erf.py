"""Effective receptive fields of backbones: how strongly the middle of the last map depends on each pixel.

    python tools/analysis_tools/erf.py vmamba_tiny vim_tiny localvmamba_tiny --size 224 --out erf.png
    python tools/analysis_tools/erf.py vmamba_tiny --checkpoint vssm1_tiny_0230s_ckpt_epoch_264.pth --images photos/

MODELs are names of mamba_vision.list_models(). Without --checkpoint their weights are random, without --images so are
the pixels. Prints, for each, what part of the image around the middle holds 20, 30, 50 and 99 % of the dependence.
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="model", help="names of backbones")
    parser.add_argument("--checkpoint", type=Path, help="weights of a single model")
    parser.add_argument("--size", type=int, nargs="+", default=[224], metavar="N",
                        help="height and width of the images; one number for both (default: 224)")  # fmt: skip
    parser.add_argument("--images", type=Path, nargs="+", help="pictures, or folders of them")
    parser.add_argument(
        "--num", type=int, default=20, help="how many images, random or of those (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of random weights and pixels (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("erf.png"), metavar="PNG",
                        help="picture to write (default: %(default)s)")  # fmt: skip
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    args = parser.parse_args(argv)
    if len(args.size) > 2 or min(args.size) < 1 or args.num < 1:
        parser.error("--size and --num: expected one or two positive numbers, and a positive number")
    if args.checkpoint and len(args.models) > 1:
        parser.error(f"--checkpoint: belongs to one model, found {len(args.models)}")
    return args


def batches(args: argparse.Namespace, size: tuple[int, int], device):
    """Normalized images, one at a time."""
    import torch

    if not args.images:
        generator = torch.Generator().manual_seed(args.seed)
        for _ in range(args.num):
            yield torch.randn(1, 3, *size, generator=generator).to(device)
        return
    import numpy as np
    from PIL import Image

    from mamba_vision.utils.image_files import find_images, read_image

    for file in find_images(args.images, False)[: args.num]:
        rgb = Image.fromarray(np.ascontiguousarray(read_image(file, 3)[..., ::-1]))
        pixels = torch.from_numpy(np.array(rgb.resize(size[::-1], Image.Resampling.BICUBIC), np.float32))
        mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
        yield ((pixels - mean) / std).permute(2, 0, 1)[None].to(device)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    import torch

    from mamba_vision.apis.models import get_model
    from mamba_vision.apis.receptive_field import effective_receptive_field, field_sides
    from mamba_vision.apis.volume_model import choose_device
    from mamba_vision.visualization.heat_maps import fields_figure

    device, size = choose_device(args.device), (args.size[0], args.size[-1])
    fields, notes = {}, {}
    for name in args.models:
        torch.manual_seed(args.seed)
        model = get_model(name, args.checkpoint, features_only=True).to(device).eval()
        fields[name] = effective_receptive_field(model.backbone, batches(args, size, device))
        sides = field_sides(fields[name])
        notes[name] = ", ".join(f"{share:.0%}: {100 * part:.1f}" for share, part in sides.items())
        print(f"{name}: part of the image that holds the share, in percent: {notes[name]}")
    fields_figure(fields, args.out, {name: f"% of area holding\n{note}" for name, note in notes.items()})
    print(f"written: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
