"""The words of the command line: what each command takes, in its own parser. No torch, so that help comes at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pixmim_eval.flags import add_flags

DEFAULT_OUT = Path("runs/evaluation")


def parse_suite(words: Sequence[str], find_options: Callable[[str], type[Any] | None]) -> argparse.Namespace:
    """Of the command without a name: evaluate models.

    Args:
        words: of the command line.
        find_options: name of a suite -> the dataclass of its own options, whose fields become flags; None for none.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pixmim_eval.run",
        description="Evaluate models and store one result row a number. A run that was stopped goes on where it was.",
        epilog="Stored rows as CSV: python -m pixmim_eval.run rows DIR [--json]. Corrupted images as files: "
        "python -m pixmim_eval.run export --help",
    )
    parser.add_argument("--suite", required=True, metavar="NAME", help="what to measure, e.g. robustness")
    files = parser.add_mutually_exclusive_group()
    files.add_argument(
        "--checkpoint",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE|GLOB",
        help="pretrained checkpoints; without this and --model, the two small ones that ship with the package",
    )
    files.add_argument(
        "--follow",
        type=Path,
        metavar="RUN_DIR",
        help="every checkpoint of a pretraining run, as pretrain.run writes it there, to the last epoch",
    )
    parser.add_argument(
        "--model",
        nargs="+",
        action="extend",
        default=[],
        metavar="TIMM_NAME",
        help="timm models; one name together with --checkpoint is the architecture of those files",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="[ROLE=]PATH",
        help="data sets by role (no role: val); default builtin:shapes16, all roles",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"run folder (default {DEFAULT_OUT})")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    _add_image_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what is done and what is missing, and stop")
    named = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    named.add_argument("--suite", nargs="?")
    suite = named.parse_known_args(words)[0].suite
    kind = find_options(suite) if suite else None
    if kind is not None:
        add_flags(parser.add_argument_group(f"of {suite}"), kind)
    return parser.parse_args(words)


def parse_export(words: Sequence[str]) -> argparse.Namespace:
    """Of `export`: corrupted images as files."""
    parser = argparse.ArgumentParser(
        prog="python -m pixmim_eval.run export",
        description="Write corrupted images in ImageNet-C's layout: DIR/CORRUPTION/SEVERITY/CLASS/IMAGE.JPEG.",
    )
    parser.add_argument("--data", required=True, metavar="PATH", help="clean images")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="cells that are there stay")
    parser.add_argument("--size", type=_positive, default=224, metavar="N", help="pixels of the images (default 224)")
    parser.add_argument(
        "--resize", type=_positive, metavar="N", help="short side before the centre crop (default 8/7 of the size)"
    )
    parser.add_argument("--interpolation", choices=("bicubic", "bilinear"), default="bicubic")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    _add_image_options(parser)
    return parser.parse_args(words)


def parse_inspect(words: Sequence[str]) -> argparse.Namespace:
    """Of `inspect`: what checkpoints are."""
    parser = argparse.ArgumentParser(
        prog="python -m pixmim_eval.run inspect",
        description="Say what a checkpoint is: format, method, architecture, and what becomes of every key.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    return parser.parse_args(words)


def parse_convert(words: Sequence[str]) -> argparse.Namespace:
    """Of `convert`: a checkpoint in another library's names."""
    parser = argparse.ArgumentParser(
        prog="python -m pixmim_eval.run convert",
        description="Write a checkpoint in another library's names. Values keep their type and every bit.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="any checkpoint that inspect knows")
    parser.add_argument(
        "--to", required=True, metavar="LAYOUT", help="timm, transformers, mmpretrain, mmseg or detectron2"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="OUT",
        help="a new file, .pth (timm: or .safetensors); for transformers a new folder",
    )
    parser.add_argument("--decoder", action="store_true", help="stop unless the decoder comes along")
    return parser.parse_args(words)


def _add_image_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--corruptions",
        nargs="+",
        default=["standard"],
        metavar="NAME",
        help="standard (the published fifteen, default), all (nineteen), or names",
    )
    parser.add_argument(
        "--jpeg-step",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="generated corruptions end as the published files do, as JPEG of quality 85 (default)",
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="at most N images of each data set")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (default 0)")
    parser.add_argument(
        "--batch-size", type=_positive, default=128, metavar="N", help="changes no result (default 128)"
    )
    parser.add_argument("--workers", type=_natural, default=2, metavar="N", help="decoding processes (default 2)")
    parser.add_argument("--on-bad-image", choices=("stop", "skip"), default="stop", help="skip counts it on the row")


def parse_rows(words: Sequence[str]) -> argparse.Namespace:
    """Of `rows`: what is stored."""
    parser = argparse.ArgumentParser(prog="python -m pixmim_eval.run rows", description="Print every stored row.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="run folder")
    parser.add_argument("--json", action="store_true", help="a JSON array of objects instead of CSV")
    return parser.parse_args(words)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text}")
    return value


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, found {text}")
    return value
