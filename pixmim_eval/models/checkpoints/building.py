"""From the tensors of a checkpoint to an encoder: sizes are read off the shapes, and every shape is checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints.checkpoint import Checkpoint, Contents, Source, split_parts
from pixmim_eval.models.checkpoints.keys import KeyUse
from pixmim_eval.models.checkpoints.reading import digest_tensors
from pixmim_eval.models.convvit import CONV_ARCHITECTURES, ConvArchitecture, ConvVisionTransformer
from pixmim_eval.models.vit import (
    ARCHITECTURES,
    Architecture,
    Classifier,
    VisionTransformer,
    interpolate_positions,
)

ALL_ARCHITECTURES: dict[str, Architecture | ConvArchitecture] = {**ARCHITECTURES, **CONV_ARCHITECTURES}


@dataclass(frozen=True)
class Geometry:
    """What shapes tell of an encoder.

    Args:
        strides, dims, depths: of each stage: one for a ViT, three for a ConvViT.
        side: patches a side.
        class_row: whether the position table has a row for the class token.
    """

    strides: tuple[int, ...]
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    side: int
    class_row: bool

    @property
    def patch(self) -> int:
        """Pixels a side of a patch."""
        return math.prod(self.strides)

    @property
    def image_size(self) -> int:
        """Pixels a side of the image."""
        return self.side * self.patch

    def fits(self, architecture: Architecture | ConvArchitecture) -> bool:
        """Whether an architecture has these sizes."""
        return _list_sizes(architecture) == (self.strides, self.dims, self.depths)


def name_backbone(architecture: Architecture | ConvArchitecture) -> str:
    """As papers write it: "ViT-B/16", "ConvViT-B"; of another size, "ViT/8 4x96" (blocks x width, stage by stage)."""
    for name, known in ALL_ARCHITECTURES.items():
        if _list_sizes(known) == _list_sizes(architecture):
            kind, size = name.split("-")
            letters, patch = size.rstrip("0123456789").capitalize(), f"/{known.patch}"
            return f"ViT-{letters}{patch}" if kind == "vit" else f"ConvViT-{letters}"
    _, dims, depths = _list_sizes(architecture)
    kind = "ConvViT" if isinstance(architecture, ConvArchitecture) else "ViT"
    stages = ", ".join(f"{depth}x{dim}" for depth, dim in zip(depths, dims, strict=True))
    return f"{kind}/{architecture.patch} {stages}"


def _list_sizes(architecture: Architecture | ConvArchitecture) -> tuple[tuple[int, ...], ...]:
    """(strides, widths, depths) of the stages."""
    if isinstance(architecture, ConvArchitecture):
        return architecture.strides, architecture.dims, architecture.depths
    return (architecture.patch,), (architecture.dim,), (architecture.depth,)


def measure_geometry(tensors: Mapping[str, Tensor], where: Path) -> Geometry:
    """Read the sizes of an encoder off its tensors.

    Raises:
        InputError: a position table that is not of a square grid.
    """
    stages = (1, 2, 3) if "patch_embed1.proj.weight" in tensors else ("",)
    kernels = [tensors[f"patch_embed{stage}.proj.weight"] for stage in stages]
    rows = tensors["pos_embed"].shape[1]
    side = math.isqrt(rows - 1)
    class_row = side * side == rows - 1 and rows > 1
    if not class_row:
        side = math.isqrt(rows)
    if side * side + class_row != rows or (class_row and len(stages) > 1):
        raise InputError(
            "checkpoint",
            expected="positions [1, n² or 1 + n², width]",
            found=f"pos_embed {tuple(tensors['pos_embed'].shape)}",
            where=str(where),
            fix="Grids that are not square and position tables with further tokens are not read.",
        )
    return Geometry(
        strides=tuple(kernel.shape[-1] for kernel in kernels),
        dims=tuple(kernel.shape[0] for kernel in kernels),
        depths=tuple(count_blocks(tensors, f"blocks{stage}.") for stage in stages),
        side=side,
        class_row=class_row,
    )


def count_blocks(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many block numbers follow a prefix."""
    return len({key.split(".")[1] for key in tensors if key.startswith(prefix)})


def infer_heads(geometry: Geometry) -> int | None:
    """Attention heads of a published size, whatever its patch; they leave no trace in the shapes."""
    for architecture in ALL_ARCHITECTURES.values():
        _, dims, depths = _list_sizes(architecture)
        if (dims, depths) == (geometry.dims, geometry.depths):
            return architecture.heads
    return None


def build(
    name: str,
    source: Source,
    contents: Contents,
    arch: Architecture | ConvArchitecture | None,
    image_size: int | None,
) -> Checkpoint:
    """The checkpoint as an encoder; see checkpoints.load."""
    encoder, decoder, classifier = split_parts(contents.tensors)
    geometry = measure_geometry(encoder, source.path)
    architecture = _choose_architecture(source.path, contents, geometry, arch)
    size = image_size or geometry.image_size
    with torch.device("meta"):  # no time lost on random weights that are replaced at once
        network = _make_network(encoder, contents, architecture, size, pooled="fc_norm.weight" in classifier)
    if not geometry.class_row and isinstance(network, VisionTransformer):  # no position is a position of zeros
        encoder["pos_embed"] = torch.cat((torch.zeros_like(encoder["pos_embed"][:, :1]), encoder["pos_embed"]), dim=1)
    if size != geometry.image_size:
        grid = (geometry.side, geometry.side)
        encoder["pos_embed"] = interpolate_positions(encoder["pos_embed"], grid, network.grid)
        if "decoder_pos_embed" in decoder:
            decoder["decoder_pos_embed"] = interpolate_positions(decoder["decoder_pos_embed"], grid, network.grid)
    fill(network, encoder, source.path, f"the encoder of {architecture}", contents.keys)
    return Checkpoint(
        path=source.path,
        format=name,
        digest=digest_tensors(source.tensors),
        encoder=network,
        architecture=architecture,
        image_size=size,
        method=contents.method,
        epoch=contents.epoch,
        normalised_target=contents.normalised[0],
        decoder=decoder,
        decoder_heads=contents.decoder_heads,
        classifier=build_classifier(classifier, architecture.dim, source.path, contents),
        keys=tuple(contents.keys),
        mean=contents.mean,
        std=contents.std,
        label_space=contents.label_space,
        settings={key: source.content[key] for key in ("recipe", "args") if key in source.content},
    )


def _make_network(
    encoder: Mapping[str, Tensor],
    contents: Contents,
    architecture: Architecture | ConvArchitecture,
    size: int,
    *,
    pooled: bool,
) -> VisionTransformer | ConvVisionTransformer:
    final_norm = "norm.weight" in encoder or not (pooled or contents.backbone)
    if isinstance(architecture, Architecture):
        scale = 1.0 if "blocks.0.ls1.gamma" in encoder else None
        return VisionTransformer(size, architecture, layer_scale=scale, final_norm=final_norm, epsilon=contents.epsilon)
    network: Any = ConvVisionTransformer(size, architecture, fusion="stage1_output_decode.weight" in encoder)
    if not final_norm:
        network.norm = nn.Identity()
    return network


def _choose_architecture(
    path: Path, contents: Contents, geometry: Geometry, arch: Architecture | ConvArchitecture | None
) -> Architecture | ConvArchitecture:
    """The one in the header, else the one asked for, else the one that the shapes tell."""
    told: Architecture | ConvArchitecture | None = contents.architecture
    if told and not (geometry.fits(told) and geometry.image_size == contents.image_size):
        raise InputError(
            "checkpoint",
            expected=f"the tensors of {told} at {contents.image_size} px, as its header says",
            found=f"{_describe(geometry)}, {geometry.image_size} px",
            where=str(path),
            fix="Make the file again.",
        )
    stages = 3 if isinstance(arch, ConvArchitecture) else 1
    if arch and ((told and arch != told) or stages != len(geometry.dims)):
        found = str(told or _describe(geometry))
        raise InputError("checkpoint", expected=str(arch), found=found, where=str(path), fix="Leave out arch.")
    if arch or told:
        return arch or told  # type: ignore[return-value]
    heads = contents.heads or infer_heads(geometry)
    if heads is None:
        raise InputError(
            "checkpoint",
            expected=f"a published architecture ({', '.join(ALL_ARCHITECTURES)}), since keys do not tell the number of "
            "heads",
            found=_describe(geometry),
            where=str(path),
            fix="Give it: checkpoints.load(path, arch=Architecture(patch, dim, depth, heads)), or a ConvArchitecture.",
        )
    if len(geometry.dims) == 1:
        return Architecture(geometry.patch, geometry.dims[0], geometry.depths[0], heads)
    return ConvArchitecture(geometry.strides, geometry.dims, geometry.depths, heads)  # type: ignore[arg-type]


def _describe(geometry: Geometry) -> str:
    dims, depths = ("/".join(map(str, sizes)) for sizes in (geometry.dims, geometry.depths))
    return f"patch {geometry.patch}, width {dims}, depth {depths}"


def build_classifier(tensors: dict[str, Tensor], dim: int, path: Path, contents: Contents) -> Classifier | None:
    """The classifier of a fine-tuned or linearly probed file; None where there is none."""
    if "head.weight" not in tensors:
        return None
    kinds = {"layer": "fc_norm.weight", "batch": "head_norm.running_mean"}
    norm = "+".join(kind for kind, key in kinds.items() if key in tensors) or None
    pooling = "mean" if "fc_norm.weight" in tensors else "cls"
    with torch.device("meta"):
        classifier = Classifier(
            dim, tensors["head.weight"].shape[0], pooling=pooling, norm=norm, epsilon=contents.epsilon
        )
    fill(classifier, tensors, path, f"a classifier on {dim} features", contents.keys)
    return classifier


def fill(module: nn.Module, tensors: dict[str, Tensor], path: Path, what: str, keys: list[KeyUse]) -> None:
    """Give a module its weights, as copies in float32, and put it in eval mode.

    Args:
        module: on the meta device.
        tensors: by its own names.
        path, what: file and module, for the message.
        keys: to name the keys of the file.

    Raises:
        InputError: a key is missing, unknown, or has another shape or kind of number than the module's.
    """
    origin = {use.target: use.key for use in keys if use.use == "renamed"}
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in tensors.items()}
    faults = [
        f"{origin.get(key, key)} {given[key]} instead of {wanted[key]}"
        for key in wanted
        if given.get(key, wanted[key]) != wanted[key]
    ]
    faults += [
        f"{origin.get(key, key)} of type {tensors[key].dtype}"
        for key, value in module.state_dict().items()
        if key in given and value.is_floating_point() != tensors[key].is_floating_point()
    ]
    faults += [f"{key} missing" for key in wanted if key not in given]
    faults += [f"{origin.get(key, key)} unknown" for key in given if key not in wanted]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(
            "checkpoint",
            expected=what,
            found="; ".join(faults[:3]) + more,
            where=str(path),
            fix="The file is incomplete or of another architecture: `pixmim-eval inspect FILE` shows what it holds.",
        )
    taken = {
        key: value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)
        for key, value in tensors.items()
    }
    module.load_state_dict(taken, assign=True)
    module.requires_grad_(False).eval()
