"""What a checkpoint file is, and what became of each of its keys."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from torch import Tensor

from pixmim_eval.models.checkpoints import open_source
from pixmim_eval.models.checkpoints.building import count_blocks, infer_heads, measure_geometry
from pixmim_eval.models.checkpoints.checkpoint import NO_TARGET, Contents, follow_sincos, split_parts
from pixmim_eval.models.checkpoints.keys import CONVVIT, DECODER, FUSION, LAYER_SCALE, VIT, KeyUse
from pixmim_eval.models.checkpoints.reading import digest_tensors

_BESIDE = {
    "optimizer": "state of the optimiser, for resuming",
    "optimizer_states": "state of the optimiser, for resuming",
    "scaler": "state of the loss scale, for resuming",
    "lr_schedulers": "state of the schedule, for resuming",
    "param_schedulers": "state of the schedule, for resuming",
    "message_hub": "logs of the training",
    "epoch": "read",
    **dict.fromkeys(("architecture", "image_size", "method", "recipe", "label_space"), "read"),
    "format": "whose header it is",
    "args": "training arguments: read",
    "meta": "configuration and versions: read",
    "model_ema": "moving average of the weights: the weights themselves are read",
    "ema_state_dict": "moving average of the weights: the weights themselves are read",
}


@dataclass(frozen=True)
class CheckpointReport:
    """What a file is, as far as it tells.

    Args:
        path: the file.
        format, layout: name in FORMATS, and whose format that is.
        method: e.g. "mae", "pixmim-mae", "deit3"; "vit" where nothing tells.
        dims, depths: width and number of blocks of each stage (one stage for a ViT).
        patch, image_size: pixels a side.
        heads: attention heads; None where the file does not tell.
        positions: "fixed sin-cos", "sin-cos, moved by training" or "learned".
        layer_scale: whether it has LayerScale.
        decoder: (width, blocks, heads or None); None for an encoder-only file.
        classifier: (classes, pooling, norm); None without one.
        normalised_target, normalised_reason: trained on per-patch normalised pixels; None for unknown; and why.
        epoch: epochs done; None where the file does not tell.
        parameters: numbers in the file; dtypes: of its tensors; digest: of names and values.
        keys: what became of every key, and what is missing.
        beside: (entry beside the weights, what it is).
    """

    path: Path
    format: str
    layout: str
    method: str
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    patch: int
    image_size: int
    heads: int | None
    positions: str
    layer_scale: bool
    decoder: tuple[int, int, int | None] | None
    classifier: tuple[int, str, str] | None
    normalised_target: bool | None
    normalised_reason: str
    epoch: int | None
    parameters: int
    dtypes: tuple[str, ...]
    digest: str
    keys: tuple[KeyUse, ...]
    beside: tuple[tuple[str, str], ...]


def inspect_checkpoint(path: str | Path) -> CheckpointReport:
    """Say what a file is without building anything; nothing that it brings along is executed.

    Raises:
        InputError: absent, truncated or foreign file, code in the file, unknown format or keys.
    """
    name, source, contents = open_source(Path(path))
    encoder, decoder, classifier = split_parts(contents.tensors)
    geometry = measure_geometry(encoder, source.path)
    heads = contents.architecture.heads if contents.architecture else contents.heads
    return CheckpointReport(
        path=source.path,
        format=name,
        layout=contents.layout,
        method=contents.method,
        dims=geometry.dims,
        depths=geometry.depths,
        patch=geometry.patch,
        image_size=geometry.image_size,
        heads=heads or infer_heads(geometry),
        positions=_describe_positions(encoder),
        layer_scale="blocks.0.ls1.gamma" in encoder,
        decoder=_describe_decoder(decoder, contents),
        classifier=_describe_classifier(classifier, has_class_token="cls_token" in encoder),
        normalised_target=contents.normalised[0],
        normalised_reason=contents.normalised[1],
        epoch=contents.epoch,
        parameters=sum(value.numel() for value in source.tensors.values()),
        dtypes=tuple(sorted({str(value.dtype).removeprefix("torch.") for value in source.tensors.values()})),
        digest=digest_tensors(source.tensors),
        keys=(*contents.keys, *list_missing(encoder, decoder, classifier, backbone=contents.backbone)),
        beside=tuple((key, _BESIDE.get(key, _describe(value))) for key, value in sorted(source.content.items())),
    )


def _describe_positions(encoder: Mapping[str, Tensor]) -> str:
    likeness = follow_sincos(encoder)
    return "fixed sin-cos" if likeness > 0.9999 else "sin-cos, moved by training" if likeness > 0.9 else "learned"


def _describe_decoder(decoder: Mapping[str, Tensor], contents: Contents) -> tuple[int, int, int | None] | None:
    if "mask_token" not in decoder:
        return None
    return decoder["mask_token"].shape[-1], count_blocks(decoder, "decoder_blocks."), contents.decoder_heads


def _describe_classifier(classifier: Mapping[str, Tensor], *, has_class_token: bool) -> tuple[int, str, str] | None:
    if "head.weight" not in classifier:
        return None
    mean = "fc_norm.weight" in classifier
    kinds = {"LayerNorm": "fc_norm.weight", "BatchNorm": "head_norm.running_mean"}
    norm = ", then ".join(kind for kind, key in kinds.items() if key in classifier) or "none of its own"
    pooling = "mean of patch tokens" if mean else "class token" if has_class_token else "first patch token"
    return classifier["head.weight"].shape[0], pooling, norm


def list_missing(
    encoder: Mapping[str, Tensor],
    decoder: Mapping[str, Tensor],
    classifier: Mapping[str, Tensor],
    *,
    backbone: bool,
) -> list[KeyUse]:
    """Keys that a whole pretraining or classification file would have, and why this one may lack them."""
    after_pooling = "fc_norm.weight" in classifier
    optional = {*FUSION, *(["norm.@"] if after_pooling or backbone else [])}
    optional |= set(LAYER_SCALE) if "blocks.0.ls1.gamma" not in encoder else set()
    names = CONVVIT if "patch_embed1.proj.weight" in encoder else VIT
    wanted = [key for key in names if key not in optional]
    missing = _list_absent(wanted, encoder, "the encoder needs it: the file is incomplete")
    if after_pooling and "norm.weight" not in encoder:
        missing.append(KeyUse("norm.@", "missing", "fine-tuned with mean pooling: fc_norm takes its place"))
    elif backbone and "norm.weight" not in encoder:
        missing.append(KeyUse("norm.@", "missing", "a backbone without final norm: tokens are those of the last block"))
    if decoder:
        missing += _list_absent(DECODER, decoder, "the decoder needs it: the file is incomplete")
    else:
        missing.append(
            KeyUse("decoder_*, mask_token", "missing", "a file without decoder: nothing can be reconstructed")
        )
    if not classifier:
        missing.append(KeyUse("head.@", "missing", "a file without classifier: a linear head is fitted"))
    return missing


def _list_absent(wanted: Iterable[str], tensors: Mapping[str, Tensor], reason: str) -> list[KeyUse]:
    names = []
    for key in wanted:
        blocks, hole, _ = key.partition("#")
        names += [key.replace("#", str(n)) for n in range(count_blocks(tensors, blocks))] if hole else [key]
    names = [name.replace("@", kind) for name in names for kind in (("weight", "bias") if "@" in name else ("",))]
    return [KeyUse(name, "missing", reason) for name in names if name not in tensors]


def _describe(value: Any) -> str:
    if isinstance(value, bool | float | str) and len(str(value)) <= 60:
        return f"not needed: {value}"
    if isinstance(value, int) and abs(value) < 10**18:  # Python prints no number of many thousand digits
        return f"not needed: {value}"
    return f"not needed: {type(value).__name__}"


def format_report(report: CheckpointReport) -> str:
    """The report as text: what the file is, then its keys in groups ('#' is a block's number, '@' weight or bias)."""
    width = " / ".join(map(str, report.dims))
    depth = " / ".join(map(str, report.depths))
    blocks, heads = _say_blocks(depth), _say_heads(report.heads)
    kind = "ConvViT" if len(report.dims) > 1 else "ViT with LayerScale" if report.layer_scale else "ViT"
    lines = [str(report.path), ""]
    facts = {
        "format": f"{report.format} (keys of {report.layout})",
        "method": report.method,
        "architecture": f"{kind}, patch {report.patch}, width {width}, {blocks}, {heads}",
        "image size": f"{report.image_size} px",
        "positions": f"{report.positions}, from the file",
        "decoder": _say_decoder(report),
        "classifier": _say_classifier(report),
        "normalised target": _say_target(report),
        "epoch": "unknown: the file does not tell" if report.epoch is None else str(report.epoch),
        "weights": f"{report.parameters:,} numbers, {', '.join(report.dtypes)}, digest {report.digest}",
    }
    lines += [f"  {name:<18} {value}" for name, value in facts.items()]
    for use in ("used", "renamed", "unused", "missing"):
        uses = [key for key in report.keys if key.use == use]
        lines += ["", f"{use} ({len(uses)})", *_group(uses)] if uses else []
    if report.beside:
        lines += ["", f"beside the weights ({len(report.beside)})"]
        lines += [f"  {key}: {reason}" for key, reason in report.beside]
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)  # no terminal commands


def _say_target(report: CheckpointReport) -> str:
    if report.normalised_reason == NO_TARGET:
        return NO_TARGET
    return f"{ {True: 'yes', False: 'no', None: 'unknown'}[report.normalised_target] }: {report.normalised_reason}"


def _say_blocks(count: str) -> str:
    return f"{count} block{'s' * (count != '1')}"


def _say_heads(heads: int | None) -> str:
    return f"{heads} heads" if heads else "number of heads unknown (shapes do not tell)"


def _say_decoder(report: CheckpointReport) -> str:
    if report.decoder is None:
        return "no"
    dim, depth, heads = report.decoder
    return f"yes: width {dim}, {_say_blocks(str(depth))}, {_say_heads(heads)}"


def _say_classifier(report: CheckpointReport) -> str:
    if report.classifier is None:
        return "no"
    classes, pooling, norm = report.classifier
    return f"yes: {classes} classes from the {pooling}, norm before it: {norm}"


def _group(uses: Iterable[KeyUse]) -> list[str]:
    """Lines of one section: the reason, then the keys that share it, alike ones together."""
    groups: dict[str, Counter[str]] = {}
    for use in uses:
        arrow = f" → {_collapse(use.target)}" if use.use == "renamed" else ""
        groups.setdefault(use.reason, Counter())[_collapse(use.key) + arrow] += 1
    lines = []
    for reason, counts in groups.items():
        names = [f"{name} ×{count}" if count > 1 else name for name, count in counts.items()]
        lines.append(f"  {reason}")
        if any("→" in name for name in names):
            lines += [f"    {name}" for name in names]
        else:
            whole = ", ".join(name.replace(" ", "\0") for name in names)  # no line breaks inside a name
            lines += [
                line.replace("\0", " ") for line in wrap(whole, 116, initial_indent="    ", subsequent_indent="    ")
            ]
    return lines


def _collapse(key: str) -> str:
    """A key with '#' for its block number and '@' for weight or bias."""
    key = re.sub(r"((?:blocks\d?|layers?)\.)\d+(?=\.)", r"\1#", key, count=1)
    return re.sub(r"(?<=\.)(weight|bias)$", "@", key)
