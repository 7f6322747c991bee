"""How other libraries load what is exported: the call, with the sizes that their networks must have, and the
configuration that transformers reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixmim_eval.errors import InputError
from pixmim_eval.models.checkpoints.building import count_blocks, infer_heads, measure_geometry
from pixmim_eval.models.checkpoints.checkpoint import Contents, Source, split_parts


@dataclass(frozen=True)
class Sizes:
    """What a library must be told to build the network of a checkpoint.

    Args:
        image_size, patch: pixels a side.
        dim, depth, heads, hidden: width, blocks, attention heads (None where nothing tells), width of the MLPs.
        class_row: whether the position table has a row for the class token.
        layer_scale: whether it has LayerScale.
        final_norm: whether the tokens are normalised at the end.
        classes: of the classifier; 0 without one.
        mean_pooling: whether the classifier reads the mean of the patch tokens, normalised.
        decoder: width, blocks, heads and MLP width; None without one.
        epsilon: of the LayerNorms.
        normalised: whether the target was normalised; None for unknown.
        mask_ratio: of the pretraining.
    """

    image_size: int
    patch: int
    dim: int
    depth: int
    heads: int | None
    hidden: int
    class_row: bool
    layer_scale: bool
    final_norm: bool
    classes: int
    mean_pooling: bool
    decoder: tuple[int, int, int | None, int] | None
    epsilon: float
    normalised: bool | None
    mask_ratio: float


def measure_sizes(source: Source, contents: Contents) -> Sizes:
    """The sizes of a ViT's checkpoint, from its shapes and from what else it tells."""
    encoder, decoder, classifier = split_parts(contents.tensors)
    geometry = measure_geometry(encoder, source.path)
    told = contents.architecture.heads if contents.architecture else contents.heads
    recipe = source.content.get("recipe")
    ratio = recipe.get("mask_ratio") if isinstance(recipe, dict) else None
    return Sizes(
        image_size=geometry.image_size,
        patch=geometry.patch,
        dim=geometry.dims[0],
        depth=geometry.depths[0],
        heads=told or infer_heads(geometry),
        hidden=_measure_hidden(encoder, "blocks.", source.path),
        class_row=geometry.class_row,
        layer_scale="blocks.0.ls1.gamma" in encoder,
        final_norm="norm.weight" in encoder,
        classes=len(classifier["head.weight"]) if "head.weight" in classifier else 0,
        mean_pooling="fc_norm.weight" in classifier,
        decoder=(
            decoder["mask_token"].shape[-1],
            count_blocks(decoder, "decoder_blocks."),
            contents.decoder_heads,
            _measure_hidden(decoder, "decoder_blocks.", source.path),
        )
        if "mask_token" in decoder
        else None,
        epsilon=contents.epsilon,
        normalised=contents.normalised[0],
        mask_ratio=ratio if isinstance(ratio, float) else 0.75,
    )


def _measure_hidden(tensors: dict[str, Any], blocks: str, path: Path) -> int:
    key = f"{blocks}0.mlp.fc1.weight"
    if key not in tensors:
        raise InputError(
            "checkpoint",
            expected=f"a whole part with {key}",
            found="none",
            where=str(path),
            fix="The file is incomplete: `inspect` lists what is missing.",
        )
    return int(tensors[key].shape[0])


def say_timm(sizes: Sizes, out: Path) -> str:
    """timm builds any size from the constructor of its base model."""
    arguments = {
        "img_size": sizes.image_size,
        "patch_size": sizes.patch,
        "embed_dim": sizes.dim,
        "depth": sizes.depth,
        "num_heads": _say_heads(sizes.heads),
        "num_classes": sizes.classes,
    }
    arguments |= {"init_values": 1.0} if sizes.layer_scale else {}
    arguments |= {} if sizes.class_row else {"no_embed_class": True}
    arguments |= {"global_pool": '"avg"'} if sizes.mean_pooling else {}
    return f'timm.create_model("vit_base_patch16_224", {_list(arguments)}, checkpoint_path={_quote(out)})'


def say_transformers(sizes: Sizes, out: Path) -> str:
    """The class that its config.json names."""
    return f"transformers.{name_architecture(sizes)}.from_pretrained({_quote(out)})"


def say_mmpretrain(sizes: Sizes, out: Path) -> str:
    """A model of a configuration with these sizes."""
    arch = {"embed_dims": sizes.dim, "num_layers": sizes.depth, "num_heads": _say_heads(sizes.heads)}
    arch |= {"feedforward_channels": sizes.hidden}
    backbone = f"backbone=dict(arch=dict({_list(arch)}), img_size={sizes.image_size}, patch_size={sizes.patch}, …)"
    return f"mmengine.runner.load_checkpoint(model, {_quote(out)})  # a model with {backbone}"


def say_mmseg(sizes: Sizes, out: Path) -> str:
    """The backbone of a configuration. Its own branch factors start at 0.1 unless told, and its positions are not
    resized."""
    arguments = {
        "type": '"MAE"',
        "img_size": sizes.image_size,
        "patch_size": sizes.patch,
        "embed_dims": sizes.dim,
        "num_layers": sizes.depth,
        "num_heads": _say_heads(sizes.heads),
        "init_values": 1.0,
        "init_cfg": f'dict(type="Pretrained", checkpoint={_quote(out)})',
    }
    return f"backbone=dict({_list(arguments)})"


def say_detectron2(sizes: Sizes, out: Path) -> str:
    """Lines of a lazy configuration; ViTDet resizes positions from the size that they were pretrained at."""
    arguments = {
        "pretrain_img_size": sizes.image_size,
        "patch_size": sizes.patch,
        "embed_dim": sizes.dim,
        "depth": sizes.depth,
        "num_heads": _say_heads(sizes.heads),
    }
    return f"train.init_checkpoint = {_quote(out)}; model.backbone.net.update(dict({_list(arguments)}))"


def _say_heads(heads: int | None) -> str:
    return str(heads) if heads else "HEADS (the file does not tell)"


def _list(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def _quote(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)


def name_architecture(sizes: Sizes) -> str:
    """The class of transformers that fits: with decoder, with classifier, or the encoder alone."""
    if sizes.decoder:
        return "ViTMAEForPreTraining"
    return "ViTForImageClassification" if sizes.classes else "ViTMAEModel"


def describe_to_transformers(sizes: Sizes, path: Path) -> dict[str, Any]:
    """config.json for from_pretrained.

    Raises:
        InputError: no final norm, or numbers of heads that nothing tells.
    """
    if sizes.heads is None or (sizes.decoder and sizes.decoder[2] is None) or not sizes.final_norm:
        raise InputError(
            "export",
            expected="a final norm and the numbers of heads, which transformers needs",
            found="an encoder without final norm" if sizes.heads and not sizes.final_norm else "no number of heads",
            where=str(path),
            fix="Export one of our own checkpoints, or one of published size.",
        )
    config: dict[str, Any] = {
        "architectures": [name_architecture(sizes)],
        "model_type": "vit" if sizes.classes else "vit_mae",
        "hidden_size": sizes.dim,
        "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.hidden,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": sizes.epsilon,
        "image_size": sizes.image_size,
        "patch_size": sizes.patch,
        "num_channels": 3,
        "qkv_bias": True,
    }
    if sizes.decoder:
        dim, depth, heads, hidden = sizes.decoder
        config |= {
            "decoder_hidden_size": dim,
            "decoder_num_hidden_layers": depth,
            "decoder_num_attention_heads": heads,
            "decoder_intermediate_size": hidden,
            "mask_ratio": sizes.mask_ratio,
            "norm_pix_loss": bool(sizes.normalised),
        }
    if sizes.classes:
        config |= {"id2label": {str(label): f"LABEL_{label}" for label in range(sizes.classes)}}
    return config
