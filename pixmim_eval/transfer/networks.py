"""Networks to be fine-tuned: a copy of an encoder with a new classifier, which knows its layers."""

from __future__ import annotations

import copy
from typing import Any

from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from pixmim_eval.errors import InputError
from pixmim_eval.models.catalog import ClassifyingEncoder
from pixmim_eval.models.convvit import ConvVisionTransformer
from pixmim_eval.models.timm_models import TimmEncoder
from pixmim_eval.models.vit import Classifier, VisionTransformer
from pixmim_eval.types import Model

HEAD_DEVIATION = 2e-5
EPSILON = 1e-6  # of the LayerNorm before the classifier
Groups = list[dict[str, Any]]


def get_encoder(model: Model, head: str, fix: str) -> VisionTransformer | ConvVisionTransformer:
    """The encoder of a model. Raises InputError where it is neither a ViT nor a ConvViT of ours.

    Args:
        head: what it is to be the backbone of.
        fix: what else to do.
    """
    encoder = model.encoder.encoder if isinstance(model.encoder, ClassifyingEncoder) else model.encoder
    if not isinstance(encoder, VisionTransformer | ConvVisionTransformer):
        raise InputError(
            f"backbone of {head}",
            expected="a ViT or ConvViT from a checkpoint",
            found=type(encoder).__name__,
            where=f"model {model.name}",
            fix=fix,
        )
    return encoder


class TunedClassifier(ClassifyingEncoder):
    """A ViT or ConvViT to be trained, and its classifier; knows its layers, for layer-wise decay."""

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters are of which layer, as timm's models say it; the others are of the last.

        Source: MAE and ConvMAE, official code, util/lr_decay.py: embedding, class token and positions are layer 0, and
            so are stages 1 and 2 of ConvMAE.
        """
        if isinstance(self.encoder, ConvVisionTransformer):
            stem = r"^encoder\.(?:pos_embed|patch_embed|blocks1|blocks2)"
            return {"stem": stem, "blocks": [(r"^encoder\.blocks3\.(\d+)", None)]}
        return {
            "stem": r"^encoder\.(?:cls_token|pos_embed|patch_embed)",
            "blocks": [(r"^encoder\.blocks\.(\d+)", None)],
        }

    def no_weight_decay(self) -> set[str]:
        """Parameters that are not decayed though they are no vectors."""
        return {"encoder.cls_token", "encoder.pos_embed"}

    @property
    def epsilon(self) -> float:
        """Of the LayerNorms in the transformer's blocks."""
        encoder: Any = self.encoder
        blocks: Any = encoder.blocks3 if isinstance(encoder, ConvVisionTransformer) else encoder.blocks
        return float(blocks[0].norm1.eps)

    def public_tensors(self) -> dict[str, Tensor]:
        """All weights under MAE's public keys."""
        return {**self.encoder.state_dict(), **self.classifier.state_dict()}


def build_network(model: Model, classes: int, pooling: str) -> TunedClassifier | TimmEncoder:
    """A trainable copy of a model's encoder with a new classifier, whose weights torch's generator draws.

    A ViT or ConvViT loses its final norm where tokens are averaged: the classifier then has one of its own. Positions
    become weights. A timm model keeps its own pooling and norm, and its head is replaced.

    Raises:
        InputError: a class token is asked of an encoder without one.

    Source: MAE, official code, models_vit.py and main_finetune.py.
    """
    encoder = model.encoder.encoder if isinstance(model.encoder, ClassifyingEncoder) else model.encoder
    encoder = copy.deepcopy(encoder).requires_grad_(True)
    if isinstance(encoder, TimmEncoder):
        encoder.network.reset_classifier(classes)
        head = encoder.network.get_classifier()
        if isinstance(head, nn.Linear):
            _initialise_head(head)
        return encoder.requires_grad_(True)
    convolutional = isinstance(encoder, ConvVisionTransformer)
    if pooling == "cls" and convolutional:
        raise InputError(
            "pooling",
            expected="mean, as the encoder has no class token",
            found="cls",
            where=f"--pooling, model {model.name}",
            fix="Use --pooling mean.",
        )
    if convolutional:  # only pretraining uses the fusion
        encoder.stage1_output_decode = encoder.stage2_output_decode = None
    if pooling == "mean":
        encoder.norm = nn.Identity()
    positions = encoder.pos_embed
    del encoder.pos_embed
    encoder.pos_embed = nn.Parameter(positions.detach().clone())
    bare = isinstance(encoder.norm, nn.Identity)
    classifier = Classifier(encoder.dim, classes, pooling=pooling, norm="layer" if bare else None, epsilon=EPSILON)
    _initialise_head(classifier.head)
    return TunedClassifier(encoder, classifier)


def _initialise_head(head: nn.Linear) -> None:
    nn.init.trunc_normal_(head.weight, std=HEAD_DEVIATION)
    if head.bias is not None:
        nn.init.zeros_(head.bias)


def group_by_layer(network: nn.Module, weight_decay: float, layer_decay: float) -> Groups:
    """Parameter groups with "lr_scale" = layer_decay^(layers above), and "weight_decay" 0 for vectors and what the
    network exempts.

    Args:
        network: a TunedClassifier or a TimmEncoder, whose network knows its layers.
        weight_decay, layer_decay: see FinetuneRecipe.

    Source: MAE, official code, util/lr_decay.py (after BEiT); timm's param_groups_layer_decay does the same.
    """
    known: Any = network.network if isinstance(network, TimmEncoder) else network
    exempt = known.no_weight_decay() if hasattr(known, "no_weight_decay") else set()
    return param_groups_layer_decay(known, weight_decay, no_weight_decay_list=exempt, layer_decay=layer_decay)
