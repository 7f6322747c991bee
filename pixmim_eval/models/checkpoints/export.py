"""Checkpoints written in the names of other code bases."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from pixmim_eval.errors import InputError
from pixmim_eval.files import write_atomic
from pixmim_eval.models.checkpoints import detectron2_vit, loaders, mmpretrain, open_source, timm_vit, transformers_vit
from pixmim_eval.models.checkpoints.checkpoint import require_decoder, split_parts
from pixmim_eval.models.checkpoints.keys import KeyUse, Names


@dataclass(frozen=True)
class Target:
    """A layout to export to.

    Args:
        choose_names: tensors -> its table.
        wrap: state dict -> the object that torch.save writes.
        why: reason for what it has no place for.
        say: (sizes, file) -> how its library loads the file.
        prepare: change of the tensors before they are renamed.
        class_row: whether its position tables always have a row for the class token.
    """

    choose_names: Callable[[Mapping[str, Tensor]], Names]
    wrap: Callable[[dict[str, Tensor]], Any]
    why: str
    say: Callable[[loaders.Sizes, Path], str]
    prepare: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    class_row: bool = True


@dataclass(frozen=True)
class Export:
    """What was written.

    Args:
        source, layout, out: the file, the name in EXPORTS, and the file or folder written.
        keys: what became of each tensor: renamed, used (under its own name), or unused with a reason.
        numbers, size: written, and the bytes of the files.
        loading: how the library loads it.
    """

    source: Path
    layout: str
    out: Path
    keys: tuple[KeyUse, ...]
    numbers: int
    size: int
    loading: str


EXPORTS = {
    "timm": Target(
        lambda _: timm_vit.NAMES,
        dict,
        "timm's ViT has no decoder and no batch norm before its classifier",
        loaders.say_timm,
        class_row=False,
    ),
    "transformers": Target(
        lambda _: transformers_vit.NAMES,
        dict,
        "transformers' ViT classifies by the class token alone, without a norm of its own",
        loaders.say_transformers,
        transformers_vit.split_attention,
    ),
    "mmpretrain": Target(
        lambda tensors: mmpretrain.NAMES if "fc_norm.weight" in tensors else mmpretrain.CLASS_TOKEN_NAMES,
        lambda tensors: {"meta": {}, "state_dict": tensors},
        "no place for it",
        loaders.say_mmpretrain,
        class_row=False,
    ),
    "mmseg": Target(
        lambda _: mmpretrain.BARE_NAMES,
        lambda tensors: {"state_dict": tensors},
        "mmseg's MAE is a backbone: no decoder, no head",
        loaders.say_mmseg,
    ),
    "detectron2": Target(
        lambda _: detectron2_vit.NAMES,
        lambda tensors: {"model": tensors, "__author__": "pixmim-eval", "matching_heuristics": False},
        "detectron2's ViT is a backbone: no decoder, no head",
        loaders.say_detectron2,
    ),
}


def export_checkpoint(path: str | Path, layout: str, out: str | Path, *, decoder: bool = False) -> Export:
    """Write a checkpoint in another code base's names. Values keep their type and every bit.

    Args:
        path: any file that `load` opens.
        layout: name in EXPORTS. detectron2's ViT has neither class token nor final norm: they are written all the
            same (its loader says that it leaves them out), so that nothing is lost on the way back.
        out: file to write, .safetensors (timm) or .pth; for transformers a folder, which gets config.json and
            model.safetensors for from_pretrained: ViTMAEForPreTraining with decoder, ViTForImageClassification with a
            classifier of the class token, else ViTMAEModel.
        decoder: stop unless the decoder is written too.

    Raises:
        InputError: unknown layout, a file that exists, an encoder that the layout cannot express, or no decoder where
            one is asked for.
    """
    path, out = Path(path), Path(out)
    _check_output(layout, out)
    target = EXPORTS[layout]
    _, source, contents = open_source(path)
    _check_parts(contents.tensors, layout, path, decoder=decoder)
    sizes = loaders.measure_sizes(source, contents)
    stored = contents.tensors
    if target.class_row and not sizes.class_row:  # no position is a position of zeros
        stored = stored | {"pos_embed": torch.nn.functional.pad(stored["pos_embed"], (0, 0, 1, 0))}
    tensors, uses = _rename(stored, target, layout, path)
    if any(use.key == "head.weight" and use.use == "unused" for use in uses):
        sizes = replace(sizes, classes=0, mean_pooling=False)
    files = _encode(tensors, target, layout, sizes, out, path)
    for file, content in files.items():
        write_atomic(file, content)
    return Export(
        source=path,
        layout=layout,
        out=out,
        keys=(*uses, *(use for use in contents.keys if use.use == "unused")),
        numbers=sum(value.numel() for value in tensors.values()),
        size=sum(map(len, files.values())),
        loading=target.say(sizes, out),
    )


def _check_output(layout: str, out: Path) -> None:
    """Raise InputError for an unknown layout, a wrong ending, or something that would be overwritten."""
    if layout not in EXPORTS:
        raise InputError(
            "export", expected=f"one of {', '.join(EXPORTS)}", found=repr(layout), where="--to", fix="Take one."
        )
    if layout == "transformers":
        there = [file.name for name in ("config.json", "model.safetensors") if (file := out / name).exists()]
        there = [out.name] if out.is_file() else there
    else:
        there = [out.name] if out.exists() else []
    if there:
        raise InputError(
            "export", expected="nothing there yet", found=there[0], where=str(out), fix="Name another, or remove it."
        )
    if layout not in ("timm", "transformers") and out.suffix == ".safetensors":
        raise InputError(
            "export", expected="a .pth file", found=out.name, where="--out", fix=f"{layout} reads files of torch.save."
        )


def _check_parts(tensors: dict[str, Tensor], layout: str, path: Path, *, decoder: bool) -> None:
    """Raise InputError for a network of convolutions, and where a decoder is asked for but would not be written."""
    if "patch_embed1.proj.weight" in tensors:
        raise InputError(
            "export",
            expected=f"a ViT, which is all that {layout} has names for",
            found="ConvMAE's encoder of convolutions and transformer blocks",
            where=str(path),
            fix="ConvMAE's own detection and segmentation code reads its public names, which the file has already.",
        )
    if not decoder:
        return
    require_decoder(split_parts(tensors)[1], path)
    able = [name for name, target in EXPORTS.items() if target.choose_names(tensors).to_theirs("mask_token")]
    if layout not in able:
        raise InputError(
            "export",
            expected=f"a layout with a decoder ({', '.join(able)})",
            found=f"{layout}: {EXPORTS[layout].why}",
            where="--decoder",
            fix="Take one of these, or leave out --decoder.",
        )


def _rename(
    tensors: dict[str, Tensor], target: Target, layout: str, path: Path
) -> tuple[dict[str, Tensor], list[KeyUse]]:
    names = target.choose_names(tensors)
    encoder, _, classifier = split_parts(tensors)
    needed = target.prepare(encoder)
    # half a classifier would be another one
    dropped = classifier if any(names.to_theirs(key) is None for key in classifier) else {}
    theirs: dict[str, Tensor] = {}
    uses: list[KeyUse] = []
    for key, value in target.prepare(tensors).items():
        name = names.to_theirs(key)
        if name is None and key in needed:
            raise InputError(
                "export",
                expected=f"an encoder that {layout} can express",
                found=f"{key}, which it has no place for",
                where=str(path),
                fix="LayerScale fits timm, mmpretrain and mmseg.",
            )
        if name is None or key in dropped:
            uses.append(KeyUse(key, "unused", target.why))
        else:
            theirs[name] = value.detach().clone(memory_format=torch.contiguous_format)
            uses.append(KeyUse(key, "used" if name == key else "renamed", target=name))
    return theirs, uses


def _encode(
    tensors: dict[str, Tensor], target: Target, layout: str, sizes: loaders.Sizes, out: Path, path: Path
) -> dict[Path, bytes]:
    """The files to write."""
    if layout == "transformers":
        config = loaders.describe_to_transformers(sizes, path)
        return {
            out / "config.json": json.dumps(config, indent=2).encode(),
            out / "model.safetensors": save(tensors, metadata={"format": "pt"}),
        }
    if out.suffix == ".safetensors":
        return {out: save(tensors, metadata={"format": "pt"})}
    buffer = io.BytesIO()
    torch.save(target.wrap(tensors), buffer)
    return {out: buffer.getvalue()}


def format_export(export: Export) -> str:
    """What was written, what was left out and why, and how the library loads it, as text."""
    left = Counter(use.reason for use in export.keys if use.use == "unused")
    written = sum(use.use != "unused" for use in export.keys)
    lines = [
        f"{export.source.name} -> {export.out}",
        f"  layout    {export.layout}",
        f"  written   {written} tensors, {export.numbers:,} numbers, {export.size:,} bytes",
        *(f"  left out  {count}: {reason}" for reason, count in left.items()),
        f"  load it   {export.loading}",
    ]
    return "\n".join(lines)
