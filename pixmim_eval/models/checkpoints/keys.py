"""Key names of checkpoints: what each key of a file becomes here, and why others are left out.

The names used here are those of the official MAE code (timm's, plus decoder_*) and of ConvMAE's: `VIT`, `CONVVIT`,
`DECODER`, `CLASSIFIER`. A format is a table of pairs (ours, theirs), read in both directions: opening a file and
exporting to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from pixmim_eval.errors import InputError

# '#' stands for the number of a block, '@' for weight or bias.
BLOCK = ("norm1.@", "attn.qkv.@", "attn.proj.@", "norm2.@", "mlp.fc1.@", "mlp.fc2.@")
LAYER_SCALE = ("blocks.#.ls1.gamma", "blocks.#.ls2.gamma")
VIT = ("cls_token", "pos_embed", "patch_embed.proj.@", *(f"blocks.#.{key}" for key in BLOCK), *LAYER_SCALE, "norm.@")
FUSION = ("stage1_output_decode.@", "stage2_output_decode.@")  # of stages 1 and 2 into the last norm, in pretraining
_CONVOLUTIONS = ("norm1.@", "conv1.@", "attn.@", "conv2.@", "norm2.@", "mlp.fc1.@", "mlp.fc2.@")
CONVVIT = (
    "pos_embed",
    *(f"patch_embed{stage}.{part}.@" for stage in (1, 2, 3) for part in ("proj", "norm")),
    "patch_embed4.@",
    *(f"blocks{stage}.#.{key}" for stage in (1, 2) for key in _CONVOLUTIONS),
    *(f"blocks3.#.{key}" for key in BLOCK),
    *FUSION,
    "norm.@",
)
DECODER = (
    *("mask_token", "decoder_pos_embed", "decoder_embed.@"),
    *(f"decoder_blocks.#.{key}" for key in BLOCK),
    *("decoder_norm.@", "decoder_pred.@"),
)
BATCH_NORM = ("head_norm.running_mean", "head_norm.running_var", "head_norm.num_batches_tracked")
CLASSIFIER = ("fc_norm.@", *BATCH_NORM, "head.@")

# Tensors that sizes are read off, and their number of dimensions.
RANKS = {
    **dict.fromkeys(("pos_embed", "decoder_pos_embed", "cls_token", "mask_token"), 3),
    **dict.fromkeys(("patch_embed.proj.weight", *(f"patch_embed{stage}.proj.weight" for stage in (1, 2, 3))), 4),
    "head.weight": 2,
}

_HOLES = {"#": r"(\d+)", "@": r"(weight|bias)"}


@dataclass(frozen=True)
class KeyUse:
    """What became of one key.

    Args:
        key: in the file; in the names used here where it is missing.
        use: "used" under its own name, "renamed", "unused", or "missing" from the file.
        reason: why; for used and renamed keys, the part that reads it: encoder, decoder or classifier.
        target: the name used here, for used and renamed keys.
    """

    key: str
    use: Literal["used", "renamed", "unused", "missing"]
    reason: str = ""
    target: str = ""


class Names:
    """A table of key templates that reads in both directions.

    Args:
        pairs: (ours, theirs); where several of theirs stand for one of ours, exports take the first.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = [(ours, theirs, compile_template(ours), compile_template(theirs)) for ours, theirs in pairs]

    def to_ours(self, key: str) -> str | None:
        """Our name of a key of theirs; None for an unknown key."""
        for ours, _, _, pattern in self._pairs:
            if found := pattern.fullmatch(key):
                return _fill(ours, found.groups())
        return None

    def to_theirs(self, key: str) -> str | None:
        """Their name of a key of ours; None where they have none."""
        for _, theirs, pattern, _ in self._pairs:
            if found := pattern.fullmatch(key):
                return _fill(theirs, found.groups())
        return None


def same_names(*groups: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of templates that both sides call the same."""
    return [(key, key) for group in groups for key in group]


def compile_template(template: str) -> re.Pattern[str]:
    """The pattern of a key template; '*' at the end stands for anything."""
    return re.compile("".join(_HOLES.get(part, ".*" if part == "*" else re.escape(part)) for part in template))


def _fill(template: str, values: Sequence[str | None]) -> str:
    left = iter(values)
    return re.sub(r"[#@]", lambda _: str(next(left)), template)


_DECODER = [compile_template(key) for key in DECODER]
_CLASSIFIER = [compile_template(key) for key in CLASSIFIER]


def name_part(key: str) -> str:
    """Which part of a model a key (by the names used here) belongs to: "encoder", "decoder" or "classifier"."""
    parts = {"decoder": _DECODER, "classifier": _CLASSIFIER}
    return next((name for name, keys in parts.items() if any(pattern.fullmatch(key) for pattern in keys)), "encoder")


def translate(
    tensors: Mapping[str, Tensor], names: Names, *, unused: Mapping[str, str], where: Path, layout: str
) -> tuple[dict[str, Tensor], list[KeyUse]]:
    """Tensors under the names used here, and an account of every key.

    Args:
        tensors: of the file.
        names: of the format.
        unused: key template -> reason why such a key is left out.
        where, layout: file and format, for the message.

    Raises:
        InputError: keys that are neither known nor known to be unused, two keys for one tensor, or a tensor that sizes
            are read off with the wrong number of dimensions.
    """
    ours: dict[str, Tensor] = {}
    uses: list[KeyUse] = []
    unknown: list[str] = []
    reasons = [(compile_template(template), reason) for template, reason in unused.items()]
    for key, value in tensors.items():
        name = names.to_ours(key)
        if name is not None and name not in ours:
            ours[name] = value
            uses.append(KeyUse(key, "used" if name == key else "renamed", name_part(name), name))
        elif reason := next((reason for pattern, reason in reasons if pattern.fullmatch(key)), ""):
            uses.append(KeyUse(key, "unused", reason))
        else:
            unknown.append(key if name is None else f"{key} (a second {name})")
    if unknown:
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        raise InputError(
            "keys of the checkpoint",
            expected=f"only keys of {layout}",
            found=", ".join(unknown[:10]) + more,
            where=str(where),
            fix="It looks like this format but holds more: nothing is left out without a reason. If it is a timm "
            "model, name it with --model.",
        )
    _check_ranks(ours, where)
    return ours, uses


def _check_ranks(tensors: Mapping[str, Tensor], where: Path) -> None:
    for key, rank in RANKS.items():
        if key in tensors and (tensors[key].ndim != rank or not tensors[key].numel()):
            raise InputError(
                "checkpoint",
                expected=f"{key} with {rank} dimensions",
                found=f"shape {tuple(tensors[key].shape)}",
                where=str(where),
                fix="The file is of another architecture.",
            )
