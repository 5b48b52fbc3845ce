"""Draw pictures from a trained generator into one PNG.

    python tools/sample.py configs/zigma/zigma-tiny_digits.py work_dirs/zigma-tiny_digits/epoch_60.pth --out digits.png
    python tools/sample.py CONFIG CHECKPOINT --classes 3 7 --num 32 --guidance 2 --seed 1 --out grid.png
    python tools/sample.py CONFIG CHECKPOINT --method sde_euler --steps 250 --arrays samples.npy --out grid.png
    python tools/sample.py CONFIG latent_model.pt --vae stabilityai/sd-vae-ft-ema --out faces.png

CHECKPOINT may be a published one. Latents need --vae to become pictures; without it the grid shows three of their
channels. Clips take one row each, a column a frame.
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="configuration of the generator")
    parser.add_argument("checkpoint", help="weights: of our training, or as published")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="the grid")
    parser.add_argument("--num", type=_positive, help="how many (default: 16, or 10 a class given)")
    parser.add_argument("--columns", type=_positive, help="pictures a row")
    parser.add_argument("--classes", type=int, nargs="+", metavar="N", help="class numbers, in turn (default: all)")
    parser.add_argument("--text", type=Path, metavar="NPY", help="text features (prompts, tokens, channels), in turn")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    parser.add_argument("--method", choices=("euler", "heun", "dopri5", "sde_euler", "sde_heun"),
                        help="solver (default: the configuration's)")  # fmt: skip
    parser.add_argument("--steps", type=_positive, metavar="N", help="steps of the solver; dopri5 chooses its own")
    parser.add_argument("--guidance", type=float, help="weight of the condition; 1: none")
    parser.add_argument("--size", type=_positive, nargs=2, metavar=("H", "W"), help="other than in training")
    parser.add_argument("--batch-size", type=_positive, default=16, help="at once (default 16)")
    parser.add_argument("--vae", metavar="FOLDER", help="autoencoder of diffusers that decodes latents")
    parser.add_argument("--arrays", type=Path, metavar="NPY", help="also write the samples as float32")
    parser.add_argument("--weights", choices=("ema", "last"),
                        help="which of a published file's two (default: ema where it has one)")  # fmt: skip
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="change the configuration")
    args = parser.parse_args(argv)
    if args.out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        parser.error(f"--out: expected a .png or .jpg file, found {args.out}")
    if args.arrays is not None and args.arrays.suffix != ".npy":
        parser.error(f"--arrays: expected a .npy file, found {args.arrays}")
    if args.num is None:
        args.num = 10 * len(args.classes) if args.classes else 16
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        import numpy as np
        import torch

        from mamba_vision.apis.config_loading import parse_options
        from mamba_vision.apis.generation import decode_latents, init_generator, sample_pictures
        from mamba_vision.utils.atomic import atomic_path
        from mamba_vision.visualization.picture_grid import save_picture_grid
    sampler = {}
    if args.method:
        sampler["method"] = args.method
    if args.steps:
        sampler["num_steps"] = args.steps + 1
    try:
        ema = None if args.weights is None else args.weights == "ema"
        model = init_generator(args.config, args.checkpoint, args.device, ema, parse_options(args.cfg_options))
        text = None if args.text is None else np.load(args.text, allow_pickle=False)
        batches = sample_pictures(
            model, args.num, args.classes, text, args.size, args.seed, args.batch_size, args.guidance, **sampler
        )
        samples, end = [], "\r" if sys.stderr.isatty() else "\n"  # over the line before, where that can be
        for batch in batches:
            samples.append(batch)
            print(f"{sum(map(len, samples))} of {args.num} pictures", end=end, file=sys.stderr, flush=True)
        samples = torch.cat(samples)
        if args.arrays is not None:
            with atomic_path(args.arrays) as temporary:
                np.save(temporary, samples.numpy())
        if args.vae:
            samples = decode_latents(samples, args.vae, args.device)
        elif samples.shape[-3] > 3:
            print("these are latents: the grid shows three of their channels; --vae decodes them", file=sys.stderr)
        save_picture_grid(args.out, samples, args.columns)
    except (ValueError, OSError, ModuleNotFoundError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"wrote {file}" for file in (args.out, args.arrays) if file))
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected at least 1")
    return value


if __name__ == "__main__":
    sys.exit(run_tool(main))
