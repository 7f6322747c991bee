"""Any timm model as an encoder and, where it has a head, as a classifier."""

from __future__ import annotations

import copy
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_data_config
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints.reading import digest_tensors, find_tensors, read_checkpoint
from pixmim_eval.models.vit import check_layers
from pixmim_eval.types import LabelSpace, Model, Preprocessing, Tokens


class TimmEncoder(nn.Module):
    """A timm model seen as an Encoder: prefix and patch tokens of a transformer, or the last map of a network of
    convolutions as patches without a class token."""

    def __init__(self, network: Any, size: int) -> None:
        super().__init__()
        self.network = network
        self.dim = network.num_features
        self.prefix = getattr(network, "num_prefix_tokens", 0)
        reductions = [level["reduction"] for level in getattr(network, "feature_info", [])]
        self.patch = reductions[-1] if reductions else size
        if sum(isinstance(module, nn.Conv2d) for module in network.modules()) > 1:
            network.to(memory_format=torch.channels_last)  # networks of convolutions are nearly twice as fast so

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K] of the model's own head."""
        return self.network(images)

    def tokens(self, images: Tensor) -> Tokens:
        """See types.Encoder."""
        return self._split(self.network.forward_features(images))

    def layer_tokens(self, images: Tensor, count: int) -> list[Tokens]:
        """Those of `tokens`, and the outputs of the layers before: of a transformer its blocks, after its final norm;
        of a network of convolutions its stages, which differ in width. See types.Encoder."""
        if count == 1:
            return [self.tokens(images)]
        check_layers(count, len(getattr(self.network, "feature_info", [])))
        prefixed = {"return_prefix_tokens": True, "output_fmt": "NLC"} if self.prefix else {}
        last, levels = self.network.forward_intermediates(images, indices=count, norm=bool(self.prefix), **prefixed)
        layers = [torch.cat((level[1], level[0]), dim=1) if self.prefix else level for level in levels[-2::-1]]
        return [self._split(last), *(_read_tokens(layer, self.prefix) for layer in layers)]

    def _split(self, features: Tensor) -> Tokens:
        if features.ndim == 4 and features.shape[1] != self.dim:  # timm's channels-last networks
            features = features.permute(0, 3, 1, 2)
        return _read_tokens(features, self.prefix)


def _read_tokens(features: Tensor, prefix: int) -> Tokens:
    """Tokens of a map [B, D, H, W], or of [B, prefix + N, D] with the class token first."""
    if features.ndim == 4:
        return Tokens(None, features.flatten(2).transpose(1, 2), (features.shape[2], features.shape[3]))
    side = int((features.shape[1] - prefix) ** 0.5)
    return Tokens(features[:, 0] if prefix else None, features[:, prefix:], (side, side))


def load_timm(name: str, weights: Path | None = None) -> Model:
    """A timm model, with its pretrained weights or with those of a file.

    Args:
        name: any name that timm.create_model takes.
        weights: state dict in timm's names, or with the same tensors in the same order under other names.

    Raises:
        InputError: unknown name (close matches named), weights that cannot be had or do not fit.
    """
    if not timm.is_model(name):
        near = get_close_matches(name.split(".")[0], timm.list_models(), n=3)
        raise InputError(
            "model",
            expected="a timm model name",
            found=repr(name),
            where="--model",
            fix=f"Did you mean {', '.join(near)}?" if near else "timm.list_models() lists them all.",
        )
    network = timm.create_model(name, pretrained=False) if weights else _create_pretrained(name)
    if weights:
        network.load_state_dict(_match(find_tensors(read_checkpoint(weights)[0]), network.state_dict(), name, weights))
    settings = resolve_data_config(model=network)
    if settings["crop_mode"] != "center" or settings["interpolation"] not in ("bicubic", "bilinear"):
        raise InputError(
            "evaluation geometry",
            expected="a centre crop after a bicubic or bilinear resize",
            found=f"crop mode {settings['crop_mode']}, {settings['interpolation']}",
            where=f"timm's settings of {name}",
            fix="This geometry is not supported: its numbers would not be the model's own.",
        )
    size = settings["input_size"][-1]
    space, digest = _find_label_space(network), digest_tensors(network.state_dict())
    encoder = TimmEncoder(_fold_norms(network.eval().requires_grad_(False), size), size)
    return Model(
        name=name,
        digest=digest,
        encoder=encoder,
        preprocessing=Preprocessing(
            size=size,
            resize=int(size / settings["crop_pct"]),
            interpolation=settings["interpolation"],
            mean=settings["mean"],
            std=settings["std"],
        ),
        classify=encoder if space else None,
        label_space=space,
        method="timm",
        backbone=name,
    )


def _fold_norms(network: nn.Module, size: int) -> nn.Module:
    """The network with each batch norm that reads a convolution's output made part of that convolution's weights.

    Which do is seen in a run on an image of noise; where another one then gives other outputs than before, beyond
    rounding, something else reads that convolution too, and the network comes back as it was.
    """
    folded = copy.deepcopy(network)
    produced: list[tuple[Tensor, nn.Conv2d]] = []
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}
    names = {module: name for name, module in folded.named_modules()}

    def remember(convolution: nn.Conv2d, _: Any, output: Tensor) -> None:
        produced.append((output, convolution))

    def match(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        for output, convolution in produced:
            if output is inputs[0]:
                pairs[norm] = convolution

    hooks = [module.register_forward_hook(remember) for module in names if isinstance(module, nn.Conv2d)]
    hooks += [module.register_forward_pre_hook(match) for module in names if isinstance(module, nn.BatchNorm2d)]
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = folded(images[:1])
        for hook in hooks:
            hook.remove()
        for norm, convolution in pairs.items():
            fused = fuse_conv_bn_eval(convolution, norm)
            convolution.weight, convolution.bias = fused.weight, fused.bias
            rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
            folded.set_submodule(names[norm], rest)
        same = torch.allclose(folded(images[1:]), network(images[1:]), rtol=1e-4, atol=1e-4 * float(before.abs().max()))
    return folded.requires_grad_(False) if same else network


def _create_pretrained(name: str) -> Any:
    try:
        return timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            "pretrained weights",
            expected=f"weights of {name} from the hub",
            found=str(error).splitlines()[0][:160],
            where="--model",
            fix="Give a file of weights with --checkpoint FILE.",
        ) from error


def _match(given: dict[str, Tensor], wanted: dict[str, Tensor], name: str, path: Path) -> dict[str, Tensor]:
    """The given tensors under the wanted names: by name, else in order where every kind and shape agrees."""

    def kinds(tensors: dict[str, Tensor]) -> list[tuple[str, tuple[int, ...]]]:
        return [(key.rsplit(".", 1)[-1], tuple(tensor.shape)) for key, tensor in tensors.items()]

    if given.keys() == wanted.keys() and all(given[key].shape == wanted[key].shape for key in wanted):
        return given
    if kinds(given) == kinds(wanted):
        return dict(zip(wanted, given.values(), strict=True))
    missing, foreign = sorted(wanted.keys() - given.keys())[:3], sorted(given.keys() - wanted.keys())[:3]
    raise InputError(
        "checkpoint",
        expected=f"the {len(wanted)} tensors of timm's {name}",
        found=f"{len(given)} tensors (missing {', '.join(missing) or 'none'}; unknown {', '.join(foreign) or 'none'})",
        where=str(path),
        fix="The file is of another architecture: name that one with --model, or leave --model out.",
    )


def _find_label_space(network: Any) -> LabelSpace | None:
    """What the head's logits mean, as far as timm knows."""
    subset = infer_imagenet_subset(network)
    if not network.num_classes or subset is None:
        return None
    names = tuple(ImageNetInfo(subset).label_names())
    return LabelSpace("imagenet-1k" if len(names) == 1000 else subset, names)
