"""MAE: encode the visible quarter of an image, reconstruct the rest (arXiv 2111.06377)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixmim_eval.models.vit import Architecture, VisionTransformer
from pretrain.decoder import Decoder
from pretrain.masking import gather_rows, mask_randomly
from pretrain.recipes import Recipe
from pretrain.targets import LowFrequency, normalise_patches, patchify


@dataclass(frozen=True)
class Reconstruction:
    """What a picture of a masked autoencoder shows, all float [B, N, patch * patch * 3] in image order.

    Args:
        target: what the loss asks for, in pixel units (before per-patch normalisation).
        prediction: in pixel units: undone with the target's mean and deviation where targets are normalised.
        mask: float [B, N], 1 where masked.
        loss: float [B, N], mean squared error of each patch in the loss's own units.
    """

    target: Tensor
    prediction: Tensor
    mask: Tensor
    loss: Tensor


class MaskedAutoencoder(nn.Module):
    """A ViT encoder, the shared decoder, and the loss on masked patches.

    Args:
        image_size: pixels a side.
        architecture: of the encoder.
        decoder: (width, depth, heads).
        mask_ratio: share of patches masked.
        low_frequency: filter of the target image; None keeps all frequencies.
        normalise_target: per-patch normalisation of the target.
    """

    def __init__(
        self,
        image_size: int,
        architecture: Architecture,
        decoder: tuple[int, int, int],
        *,
        mask_ratio: float = 0.75,
        low_frequency: LowFrequency | None = None,
        normalise_target: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = VisionTransformer(image_size, architecture)
        side, patch = self.encoder.grid[0], architecture.patch
        self.decoder = Decoder(architecture.dim, *decoder, side=side, values=patch * patch * 3)
        self.patches = side * side
        self.mask_ratio = mask_ratio
        self.low_frequency = low_frequency
        self.normalise_target = normalise_target

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """The pretraining loss: mean squared error over the masked patches of the batch.

        Args:
            images: float [B, 3, H, W], normalised; what the encoder sees (the target is computed from them).
            noise: float [B, N]; see mask_randomly.

        Returns:
            float32 scalar.
        """
        masking = mask_randomly(noise, self.mask_ratio)
        prediction = self.decoder(self.encoder(images, masking.visible), masking)
        with torch.no_grad():
            target = gather_rows(self._target_patches(images), masking.masked)
            if self.normalise_target:
                target = normalise_patches(target)
        return F.mse_loss(prediction.float(), target)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, noise: Tensor) -> Reconstruction:
        """Predictions for every patch, for pictures and for comparison with public code; arguments as `forward`."""
        masking = mask_randomly(noise, self.mask_ratio)
        prediction = self.decoder.predict_all(self.encoder(images, masking.visible), masking).float()
        target = self._target_patches(images)
        wanted = normalise_patches(target) if self.normalise_target else target
        loss = (prediction - wanted).square().mean(dim=2)
        if self.normalise_target:
            variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
            prediction = prediction * (variance + 1e-6).sqrt() + mean
        return Reconstruction(target=target, prediction=prediction, mask=masking.mask(), loss=loss)

    def _target_patches(self, images: Tensor) -> Tensor:
        """Target pixels of every patch, float32 [B, N, patch * patch * 3]."""
        target = images.float() if self.low_frequency is None else self.low_frequency(images)
        return patchify(target, self.encoder.patch)

    def public_tensors(self) -> dict[str, Tensor]:
        """All weights and position tables under the keys of the official code."""
        tensors = dict(self.encoder.state_dict())
        for key, value in self.decoder.state_dict().items():
            tensors[key if key == "mask_token" else f"decoder_{key}"] = value
        return tensors


def build(recipe: Recipe) -> MaskedAutoencoder:
    """The model of a recipe, with random weights from torch's global generator."""
    return MaskedAutoencoder(
        recipe.image_size,
        Architecture(patch=recipe.patch, dim=recipe.dim, depth=recipe.depth, heads=recipe.heads),
        (recipe.decoder_dim, recipe.decoder_depth, recipe.decoder_heads),
        mask_ratio=recipe.mask_ratio,
        low_frequency=LowFrequency(recipe.radius) if recipe.radius else None,
        normalise_target=recipe.normalise_target,
    )
