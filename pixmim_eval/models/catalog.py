"""What --checkpoint and --model name: files, globs, timm models, and the two checkpoints that ship."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from timm.data import ImageNetInfo
from torch import Tensor, nn

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints import Checkpoint, load
from pixmim_eval.models.timm_models import load_timm
from pixmim_eval.models.vit import Classifier
from pixmim_eval.types import LabelSpace, Model, Preprocessing, Tokens

SHIPPED = Path(__file__).parent / "shipped"


def load_models(checkpoints: Sequence[str] = (), names: Sequence[str] = ()) -> list[Model]:
    """Models ready to be evaluated, on the CPU, each under a name of its own.

    Args:
        checkpoints: files or globs.
        names: timm models; one name together with checkpoints means that architecture with those files' weights.
            With neither, the two shipped checkpoints (MAE and PixMIM-MAE on shapes16).

    Raises:
        InputError: a glob without files, several names with files, or whatever loading finds.
    """
    paths = _expand(checkpoints) if checkpoints or names else sorted(SHIPPED.glob("*.safetensors"))
    if names and paths:
        if len(names) > 1:
            raise InputError(
                "models",
                expected="one --model name for the weights of --checkpoint",
                found=f"{len(names)} names",
                where="--model",
                fix="Evaluate them in separate commands.",
            )
        models = [replace(load_timm(names[0], path), name=f"{names[0]}:{path.stem}") for path in paths]
        return models if len(models) > 1 else [replace(models[0], name=names[0])]
    models = [_from_checkpoint(load(path)) for path in paths] + [load_timm(name) for name in names]
    return _name_apart(models, [*paths, *map(Path, names)])


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


def _from_checkpoint(checkpoint: Checkpoint) -> Model:
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
        checkpoint=checkpoint,
    )
    space = checkpoint.label_space
    if space is None and checkpoint.classifier is not None and checkpoint.classifier.classes == 1000:
        space = LabelSpace("imagenet-1k", tuple(ImageNetInfo("imagenet-1k").label_names()))
    if checkpoint.classifier is None or space is None:  # what other labels mean is unknown
        return model
    both = ClassifyingEncoder(checkpoint.encoder, checkpoint.classifier)
    return replace(model, encoder=both, classify=both, label_space=space)


def _name_apart(models: list[Model], paths: list[Path]) -> list[Model]:
    """Names that differ: their own, which no other model changes, else with folder and file, else with the digest."""
    names = [model.name for model in models]
    counts = Counter(names)
    files = [f":{path.parent.name}/{path.stem}" for path in paths]
    names = [name if counts[name] == 1 else name + file for name, file in zip(names, files, strict=True)]
    counts = Counter(names)
    names = [name if counts[name] == 1 else f"{name}@{m.digest[:6]}" for name, m in zip(names, models, strict=True)]
    return [replace(model, name=name) for model, name in zip(models, names, strict=True)]
