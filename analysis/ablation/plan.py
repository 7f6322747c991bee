"""The arms of an ablation: what each pretrains, and the commands of it, in order."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.ablation.arms import CROPS, METHODS
from analysis.ablation.basis import Basis
from analysis.ablation.programs import Command
from pixmim_eval.errors import InputError

VARIED = {"bandwidth": ("target", "radius"), "crop": ("crop",), "components": ("target", "crop")}
PRETRAINING = "pretraining"
# Published: 40 of the 112 cycles that 224 px hold. The others are fractions of Nyquist around it.
FRACTIONS = (5 / 112, 10 / 112, 20 / 112, 40 / 112, 80 / 112, 1.0)
REAL_DETAIL = 128  # pixels of the short side, from which on images hold enough beyond the published radius


@dataclass(frozen=True)
class Step:
    """One command: PRETRAINING, or the name of a suite."""

    name: str
    command: Command


@dataclass(frozen=True)
class Arm:
    """One pretraining and its evaluations.

    Args:
        name: of its folders.
        label: for people.
        basis: the recipe that it varies.
        settings: what its recipe.json will hold.
        pretraining, evaluation: its folders.
        steps: pretraining, then one a suite.
    """

    name: str
    label: str
    basis: Basis
    settings: Mapping[str, Any]
    pretraining: Path
    evaluation: Path
    steps: tuple[Step, ...]

    @property
    def checkpoint(self) -> Path:
        """What pretraining leaves and suites evaluate."""
        return self.pretraining / f"epoch-{self.settings['epochs']:04d}.safetensors"

    @property
    def total_steps(self) -> int:
        """Optimizer steps of its pretraining."""
        return int(self.settings["epochs"]) * self.basis.steps


@dataclass(frozen=True)
class Plan:
    """An ablation: its name, its folder, its arms, and what a reader of its figure must know."""

    name: str
    out: Path
    arms: tuple[Arm, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Draft:
    """An arm before its commands; `changes` are the fields in which it differs from its basis."""

    name: str
    label: str
    basis: Basis
    changes: dict[str, Any]


def make_plan(
    name: str,
    out: Path,
    bases: Sequence[Basis],
    *,
    data: str,
    suites: Sequence[Command],
    evaluation_data: Sequence[str] = (),
    radii: Sequence[float] = (),
    gpus: int = 1,
) -> Plan:
    """All arms of an ablation with their commands.

    Args:
        name: "bandwidth", "crop" or "components".
        out: its folder.
        bases: the recipe; for "crop", the supervised one too, where it takes part.
        data: of pretraining.
        suites: each with its flags.
        evaluation_data: as pixmim_eval.run takes --data; () for `data`.
        radii: of "bandwidth", in cycles per image; () for FRACTIONS of Nyquist.
        gpus: of each pretraining, by torchrun where there are several.

    Raises:
        InputError: a recipe without a target, a radius beyond Nyquist, or fewer images than a batch.
    """
    for basis in bases:
        _check_basis(name, basis, first=basis is bases[0])
    drafts = {
        "bandwidth": lambda: _draft_bandwidth(bases[0], radii),
        "crop": lambda: [arm for basis in bases for arm in _draft_crop(basis)],
        "components": lambda: _draft_components(bases[0]),
    }[name]()
    arms = tuple(_write_arm(draft, out, data, suites, evaluation_data or (data,), gpus) for draft in drafts)
    return Plan(name, out, arms, _list_notes(name, bases[0], arms))


def _draft_bandwidth(basis: Basis, radii: Sequence[float]) -> list[_Draft]:
    """A low-pass target at each radius, and the target that keeps everything."""
    given = radii or [round(fraction * basis.nyquist, 2) for fraction in FRACTIONS]
    rounded = sorted({float(f"{radius:g}") for radius in given})
    wrong = [radius for radius in rounded if not 0 < radius <= basis.nyquist]
    if wrong:
        raise InputError(
            "radii of the low-pass filter",
            expected=f"above 0, and at most Nyquist's {basis.nyquist:g} cycles of {basis.settings['image_size']} px",
            found=", ".join(f"{radius:g}" for radius in wrong[:3]),
            where="--radii",
            fix="Leave it out for fractions of Nyquist; the plain target, which keeps everything, is always there.",
        )
    drafts = [
        _Draft(
            f"r{radius:g}",
            f"r = {radius:g} cycles per image, {radius / basis.nyquist:.2g} of Nyquist",
            basis,
            {"target": "lowfreq", "radius": radius},
        )
        for radius in rounded
    ]
    return [*drafts, _Draft("plain", "r = none: normalised pixels", basis, {"target": "normalised"})]


def _draft_crop(basis: Basis) -> list[_Draft]:
    method = basis.settings["method"]
    label = METHODS.get(method, method)
    return [_Draft(f"{method}-{crop}", f"{label}, {crop.upper()}", basis, {"crop": crop}) for crop in CROPS]


def _draft_components(basis: Basis) -> list[_Draft]:
    target, radius = {"target": "lowfreq"}, basis.settings["radius"]
    if radius > basis.nyquist:
        raise InputError(
            "radius of the low-pass filter",
            expected=f"at most Nyquist's {basis.nyquist:g} cycles of {basis.settings['image_size']} px",
            found=f"{radius:g}",
            where=f"--recipe {basis.name}",
            fix=f"Put --radius {40 / 112 * basis.nyquist:.4g} there, the published share of the band.",
        )
    plain, rrc, src = {"target": "normalised"}, {"crop": "rrc"}, {"crop": "src"}
    return [
        _Draft("base", "neither: normalised pixels, RRC", basis, plain | rrc),
        _Draft("target", f"target only: low-pass, r = {radius:g} cycles", basis, target | rrc),
        _Draft("crop", "crop only: SRC", basis, plain | src),
        _Draft("both", f"both: r = {radius:g} cycles, SRC", basis, target | src),
    ]


def _check_basis(name: str, basis: Basis, *, first: bool) -> None:
    """Raise InputError where a recipe cannot take the part it has in an ablation."""
    if first and basis.supervised:
        raise InputError(
            f"recipe of the ablation {name}",
            expected="one that masks images and predicts a target",
            found=f"{basis.name}, which learns from labels",
            where="--recipe",
            fix="Take an MAE recipe, e.g. --recipe mae-64px; "
            "the crop ablation adds DeiT III by itself, or by --supervised.",
        )
    if not first and not basis.supervised:
        raise InputError(
            "supervised recipe of the ablation",
            expected="one that learns from labels",
            found=basis.name,
            where="--supervised",
            fix="For example --supervised deit3-64px, or --supervised none.",
        )
    if basis.steps < 1:
        raise InputError(
            "training data",
            expected=f"at least the {basis.settings['batch_size']} images of a batch",
            found=f"{basis.images} images",
            where="--data",
            fix=f"Put a smaller --batch-size behind --recipe {basis.name}, in quotation marks.",
        )


def _write_arm(
    draft: _Draft, out: Path, data: str, suites: Sequence[Command], evaluation_data: Sequence[str], gpus: int
) -> Arm:
    """An arm with its folders and commands; every field that the ablation varies is a flag, also where it is usual."""
    pretraining, evaluation = out / "pretrain" / draft.name, out / "evaluation" / draft.name
    flags = [
        word
        for field, value in draft.changes.items()
        for word in ("--" + field.replace("_", "-"), f"{value:g}" if isinstance(value, float) else str(value))
    ]
    launcher = ("torchrun", "--standalone", "--nproc-per-node", str(gpus)) if gpus > 1 else ("python",)
    settings = draft.basis.settings | draft.changes
    arm = Arm(draft.name, draft.label, draft.basis, settings, pretraining, evaluation, ())
    command = (*launcher, "-m", "pretrain.run", "--recipe", *draft.basis.words, *flags)
    steps = [Step(PRETRAINING, (*command, "--data", data, "--out", str(pretraining)))]
    for words in suites:
        count = sum(step.name.partition("#")[0] == words[0] for step in steps)
        name = f"{words[0]}#{count + 1}" if count else words[0]
        of_data = ("--checkpoint", glob.escape(str(arm.checkpoint)), "--data", *evaluation_data)
        steps.append(Step(name, (*EVALUATION, *words, *of_data, "--out", str(evaluation))))
    return Arm(draft.name, draft.label, draft.basis, settings, pretraining, evaluation, tuple(steps))


EVALUATION = ("python", "-m", "pixmim_eval.run", "--suite")


def _list_notes(name: str, basis: Basis, arms: Sequence[Arm]) -> tuple[str, ...]:
    """What a reader must know of the frequencies that the training images hold at all."""
    size, side = basis.settings["image_size"], basis.short_side
    if name == "crop":
        return ()
    notes = [f"Crops of {size} px hold up to {basis.nyquist:g} cycles along a side (Nyquist)."]
    if name == "components":
        radius = basis.settings["radius"]
        notes.append(f"The target keeps r = {radius:g} cycles per image, {radius / basis.nyquist:.2g} of Nyquist.")
    if not 0 < side < max(size, REAL_DETAIL):
        return tuple(notes)
    held = side / 2
    enlarged = f", are enlarged to {size} px" if side < size else ""
    above = [arm.name for arm in arms if arm.settings["target"] == "lowfreq" and arm.settings["radius"] >= held]
    same = f" {', '.join(above)} therefore takes hardly anything away." if above else ""
    notes.append(
        f"Warning: training images have {side} px on the short side{enlarged}, and hold nothing above {held:g} cycles "
        f"(less where a random resized crop enlarges a part); if they were shrunk to this size, they are low-passed "
        f"already.{same} An ablation of r that means something runs on images with real detail: "
        f"builtin:shapes16@128 to @224 at crops of that size, or photographs."
    )
    return tuple(notes)
