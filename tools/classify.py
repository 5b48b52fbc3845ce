"""Name what is in pictures: a file, several, or folders of them, of any size.

    python tools/classify.py vmamba_tiny_s1l8 vssm1_tiny_0230s_ckpt_epoch_264.pth photo.jpg
    python tools/classify.py configs/rsmamba/rsmamba-base_uc.py rsmamba_b_uc.pth scenes/ --csv scenes.csv --draw seen/

MODEL is a configuration or a name of mamba_vision.list_models(). A damaged picture is reported and the others go on;
the exit status is then 1.
"""

import argparse
import csv
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="configuration file, or name of a model")
    parser.add_argument("checkpoint", help="weights, trained here or as published")
    parser.add_argument("images", type=Path, nargs="+", help="pictures, or folders of them")
    parser.add_argument("--recursive", action="store_true", help="also look into folders inside folders")
    parser.add_argument("--topk", type=_positive, default=5, help="classes reported (default 5)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a table, a row a picture and class")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same as JSON")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="write the pictures with their label on them")
    parser.add_argument("--batch-size", type=_positive, default=8, help="pictures predicted together (default 8)")
    parser.add_argument("--resume", action="store_true",
                        help="leave what is finished with the same weights and options, which FILE.finished.jsonl, or "
                             "FOLDER/finished.jsonl, tells")  # fmt: skip
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    args = parser.parse_args(argv)
    if args.resume and not (args.csv or args.json or args.draw):
        parser.error("--resume: needs results that are kept, by --csv, --json or --draw")
    return args


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {value}")
    return value


def _journal_of(args: argparse.Namespace) -> Path | None:
    """Where it is kept what is finished: beside what is written."""
    table = args.csv or args.json
    if table is not None:
        return table.with_name(f"{table.name}.finished.jsonl")
    return None if args.draw is None else args.draw / "finished.jsonl"


def write_csv(path: Path, results: list) -> None:
    from mamba_vision.utils.atomic import atomic_path

    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "rank", "label", "score", "error"])
        for result in results:
            if result.error:
                table.writerow([result.image, "", "", "", result.error])
            for rank, (label, score) in enumerate(zip(result.labels, result.scores), 1):
                table.writerow([result.image, rank, label, score, ""])


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mamba_vision.utils.quiet import quiet_imports

    try:
        from mamba_vision.utils.image_files import find_images

        images = find_images(args.images, args.recursive)
        with quiet_imports():
            from mamba_vision.apis.classification import ImageClassifierInferencer
            from mamba_vision.apis.classification_run import RunOptions, classify_images
        inferencer = ImageClassifierInferencer(args.model, args.checkpoint, args.device)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options = RunOptions(args.topk, args.batch_size, args.draw, _journal_of(args), args.resume)
    results = {}
    try:
        for result in classify_images(inferencer, images, options):
            results[result.image] = result
            pairs = ", ".join(f"{label} {score:.3f}" for label, score in zip(result.labels, result.scores))
            print(f"{result.image}: {(result.error and 'FAILED') or pairs}", flush=True)
    except KeyboardInterrupt:
        goes_on = "; the same command with --resume goes on" if options.journal else ""
        print(f"\ninterrupted{goes_on}", file=sys.stderr)
        return 130
    finally:  # also after Ctrl-C
        results = [results[str(image)] for image in images if str(image) in results]
        if args.csv:
            write_csv(args.csv, results)
        if args.json:
            from mamba_vision.utils.atomic import write_json

            write_json(args.json, [result.as_dict() for result in results])
    failed = [result for result in results if result.error]
    written = [str(path) for path in (args.csv, args.json, args.draw) if path is not None]
    print(f"{len(results) - len(failed)} of {len(results)} classified" + (f"; {', '.join(written)}" if written else ""))
    for result in failed:
        print(f"failed: {result.error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
