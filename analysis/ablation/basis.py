"""A recipe with its flags, and what pretrain.run says that it would be: analysis itself knows no recipe."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.ablation.programs import Command, ask_programs
from pixmim_eval.errors import InputError

# Of a masked recipe's flags, those that its supervised counterpart takes over: size, length and where it runs.
SHARED_FLAGS = frozenset(
    {
        *("--image-size", "--patch", "--dim", "--depth", "--heads", "--epochs", "--batch-size", "--accumulate"),
        *("--warmup-epochs", "--precision", "--compile", "--no-compile", "--seed", "--save-every", "--save-dtype"),
        *("--state-minutes", "--in-memory", "--workers", "--device", "--on-bad-image"),
    }
)
_OURS = {"--recipe", "--data", "--out", "--dry-run"}


@dataclass(frozen=True)
class Basis:
    """What the arms of an ablation have in common.

    Args:
        words: as typed after --recipe: its name, then flags.
        settings: what recipe.json of the recipe itself would hold.
        supervised: it learns from labels, and has no target.
        images: of the training data.
        steps: of an epoch.
        short_side: of the training images in pixels, the median of a few; 0 where none could be read.
    """

    words: Command
    settings: dict[str, Any]
    supervised: bool
    images: int
    steps: int
    short_side: int

    @property
    def name(self) -> str:
        """Of the recipe."""
        return self.words[0]

    @property
    def nyquist(self) -> float:
        """The greatest frequency that a crop holds along a side, in cycles per image."""
        return float(self.settings["image_size"]) / 2


def split_recipe(text: str, varied: Collection[str]) -> Command:
    """The words of "NAME --FLAG VALUE …". Raises InputError for no name, or a flag that the ablation sets itself.

    Args:
        text: as typed after --recipe.
        varied: fields of the recipe that the ablation varies.
    """
    words = _split(text, "--recipe")
    _refuse_flags(words, _OURS | {"--" + field for field in varied}, "--recipe")
    return words


def split_suite(text: str) -> Command:
    """The words of "SUITE --FLAG VALUE …". Raises InputError as split_recipe."""
    words = _split(text, "--suites")
    _refuse_flags(words, {"--suite", "--checkpoint", "--follow", "--model", "--data", "--out", "--dry-run"}, "--suites")
    return words


def _split(text: str, option: str) -> Command:
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:  # a quotation that does not end
        words, found = (), f"{text!r}: {error}"
    else:
        found = repr(text)
    if not words or words[0].startswith("-"):
        raise InputError(
            "an option of the ablation",
            expected="a name, then its flags, in quotation marks: 'NAME --FLAG VALUE'",
            found=found,
            where=option,
            fix=f"For example {option} 'mae-64px --epochs 8'." if option == "--recipe" else "For example 'knn'.",
        )
    return words


def _refuse_flags(words: Command, refused: Collection[str], option: str) -> None:
    wrong = [word for word in words if word.partition("=")[0] in refused]
    if wrong:
        raise InputError(
            "flags of an ablation's step",
            expected="those that the ablation does not set itself",
            found=", ".join(wrong[:3]),
            where=f"{option} {shlex.join(words)!r}",
            fix="Leave it out there; --data, --eval-data, --radii and --out of the ablation say the same.",
        )


def find_counterpart(words: Command) -> Command:
    """The DeiT III recipe of the same size, with those flags that both kinds of recipe take."""
    size = words[0].removeprefix("pixmim-").partition("-")[2]
    flags: list[str] = []
    taken = False
    for word in words[1:]:
        taken = word.partition("=")[0] in SHARED_FLAGS if word.startswith("--") else taken
        flags += [word] if taken else []
    return (f"deit3-{size}", *flags)


def read_bases(recipes: Sequence[Command], data: str) -> list[Basis]:
    """Asks pretrain.run what recipes would be on some data.

    Raises:
        InputError: unknown recipe or field, bad values, or no such data.
    """
    commands: list[Command] = [
        ("python", "-m", "pretrain.run", "--recipe", *words, "--data", data, "--dry-run") for words in recipes
    ]
    answers = [json.loads(answer) for answer in ask_programs(commands)]
    return [
        Basis(words, told["settings"], told["supervised"], told["images"], told["steps"], told["short_side"])
        for words, told in zip(recipes, answers, strict=True)
    ]
