"""What --checkpoint and --model name: files, globs, timm models, and the two checkpoints that ship."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

from timm.data import ImageNetInfo
from torch import Tensor, nn

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints import Checkpoint, load
from pixmim_eval.models.checkpoints.building import name_backbone
from pixmim_eval.models.timm_models import load_timm
from pixmim_eval.models.vit import Classifier
from pixmim_eval.types import LabelSpace, Model, Preprocessing, Tokens

SHIPPED = Path(__file__).parent / "shipped"
FEW = 4  # models in memory at a time


def load_models(checkpoints: Sequence[str] = (), names: Sequence[str] = ()) -> list[Model] | LazyModels:
    """Models ready to be evaluated, on the CPU, each under a name of its own.

    Args:
        checkpoints: files or globs.
        names: timm models; one name together with checkpoints means that architecture with those files' weights.
            With neither, the two shipped checkpoints (MAE and PixMIM-MAE on shapes16).

    Returns:
        A list of at most FEW models; more are loaded whenever they are asked for.

    Raises:
        InputError: a glob without files, several names with files, or whatever loading finds.
    """
    paths = _expand(checkpoints) if checkpoints or names else sorted(SHIPPED.glob("*.safetensors"))
    names = list(dict.fromkeys(names))
    if names and paths:
        if len(names) > 1:
            raise InputError(
                "models",
                expected="one --model name for the weights of --checkpoint",
                found=f"{len(names)} names",
                where="--model",
                fix="Evaluate them in separate commands.",
            )
        loaders = [partial(_load_weights, names[0], path, alone=len(paths) == 1) for path in paths]
        models = LazyModels(loaders, paths)
    else:
        models = LazyModels(
            [*(partial(_load_file, path) for path in paths), *(partial(load_timm, name) for name in names)],
            [*paths, *map(Path, names)],
        )
    return models if len(models) > FEW else models.load()


class LazyModels(Sequence[Model]):
    """Models that are loaded each time they are asked for, and kept by nobody: hundreds do not fit in memory.

    Their names are known only once all were loaded, one after the other: the first use takes that long.

    Args:
        loaders: what loads each.
        paths: their files.
        others: models in memory that come behind them.
    """

    def __init__(
        self, loaders: Sequence[Callable[[], Model]], paths: Sequence[Path], others: Sequence[Model] = ()
    ) -> None:
        self._loaders, self._paths, self._others = loaders, paths, others

    def __len__(self) -> int:
        return len(self._loaders) + len(self._others)

    @overload
    def __getitem__(self, place: int) -> Model: ...

    @overload
    def __getitem__(self, place: slice) -> list[Model]: ...

    def __getitem__(self, place: int | slice) -> Model | list[Model]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        if place >= len(self._loaders):
            return self._others[place - len(self._loaders)]
        return replace(self._loaders[place](), name=self._names[place])

    def __add__(self, others: Sequence[Model]) -> LazyModels:
        return LazyModels(self._loaders, self._paths, [*self._others, *others])

    def load(self) -> list[Model]:
        """All of them in memory, each loaded once."""
        models = [load() for load in self._loaders]
        names = _name_apart([_Outline.of(model) for model in models], self._paths)
        return [*(replace(model, name=name) for model, name in zip(models, names, strict=True)), *self._others]

    @cached_property
    def _names(self) -> list[str]:
        return _name_apart([_Outline.of(load()) for load in self._loaders], self._paths)


@dataclass(frozen=True)
class _Outline:
    """What a name is made from: as Model has it."""

    name: str
    digest: str
    epoch: int | None

    @classmethod
    def of(cls, model: Model) -> _Outline:
        return cls(model.name, model.digest, model.epoch)

    @property
    def series(self) -> str:
        """What checkpoints of one method have in common: the name without its epoch."""
        return self.name if self.epoch is None else self.name.removesuffix(f"-{self.epoch}")


def _load_weights(name: str, path: Path, *, alone: bool) -> Model:
    """A file's weights in timm's architecture of this name."""
    return replace(load_timm(name, path), name=name if alone else f"{name}:{path.stem}")


def _expand(patterns: Sequence[str]) -> list[Path]:
    paths: list[Path] = []
    for pattern in patterns:
        found = [Path(pattern)] if not glob.has_magic(pattern) else [Path(p) for p in sorted(glob.glob(pattern))]  # noqa: PTH207
        if not found:
            raise InputError(
                "checkpoints",
                expected="at least one file",
                found="none",
                where=pattern,
                fix="Check the pattern, and quote it so that the shell leaves it alone.",
            )
        paths += [path for path in found if path not in paths]
    return paths


class ClassifyingEncoder(nn.Module):
    """An encoder with the classifier that its file brings along: `tokens` of the one, logits of both."""

    def __init__(self, encoder: Any, classifier: Classifier) -> None:
        super().__init__()
        self.encoder, self.classifier = encoder, classifier
        self.dim, self.patch = encoder.dim, encoder.patch

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K]."""
        return self.classifier(self.encoder.tokens(images))

    def tokens(self, images: Tensor) -> Tokens:
        """See types.Encoder."""
        return self.encoder.tokens(images)

    def layer_tokens(self, images: Tensor, count: int) -> list[Tokens]:
        """See types.Encoder."""
        return self.encoder.layer_tokens(images, count)


def _load_file(path: Path) -> Model:
    return make_model(load(path))


def make_model(checkpoint: Checkpoint) -> Model:
    """A checkpoint ready to be evaluated, with its classifier where it is known what its outputs mean."""
    size = checkpoint.image_size
    preprocessing = Preprocessing(size=size, resize=size * 8 // 7 if size >= 224 else size)  # 256 for 224
    if checkpoint.mean and checkpoint.std:
        preprocessing = replace(preprocessing, mean=checkpoint.mean, std=checkpoint.std)
    model = Model(
        name=checkpoint.method if checkpoint.epoch is None else f"{checkpoint.method}-{checkpoint.epoch}",
        digest=checkpoint.digest,
        encoder=checkpoint.encoder,
        preprocessing=preprocessing,
        method=checkpoint.method,
        epoch=checkpoint.epoch,
        backbone=name_backbone(checkpoint.architecture),
        checkpoint=checkpoint,
    )
    space = checkpoint.label_space
    if space is None and checkpoint.classifier is not None and checkpoint.classifier.classes == 1000:
        space = LabelSpace("imagenet-1k", tuple(ImageNetInfo("imagenet-1k").label_names()))
    if checkpoint.classifier is None or space is None:  # what other labels mean is unknown
        return model
    both = ClassifyingEncoder(checkpoint.encoder, checkpoint.classifier)
    return replace(model, encoder=both, classify=both, label_space=space)


def _name_apart(models: Sequence[_Outline], paths: Sequence[Path]) -> list[str]:
    """Names that differ, by which the checkpoints of one run are known as such.

    A name is the model's own. Checkpoints of one method from several folders, and other models of one name, get folder
    and file besides: as much of the folder as tells them apart. What is still alike gets the digest.
    """
    counts = Counter(model.name for model in models)
    folders: dict[str, set[Path]] = {}
    for model, path in zip(models, paths, strict=True):
        folders.setdefault(model.series, set()).add(path.absolute().parent)
    names = []
    for model, path in zip(models, paths, strict=True):
        near = folders[model.series]
        apart = counts[model.name] > 1 or (model.epoch is not None and len(near) > 1)
        names.append(f"{model.name}:{_shorten(path.absolute().parent, near)}/{path.stem}" if apart else model.name)
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name}@{m.digest[:6]}" for name, m in zip(names, models, strict=True)]


def _shorten(folder: Path, folders: Collection[Path]) -> str:
    """The end of a folder's path that is long enough to tell all folders apart."""
    for length in range(1, max(len(other.parts) for other in folders)):
        if len({other.parts[-length:] for other in folders}) == len(folders):
            return "/".join(folder.parts[-length:])
    return folder.as_posix()
