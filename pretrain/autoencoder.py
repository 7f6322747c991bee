"""What MAE, LSMAE and ConvMAE share: encode what is visible of an image, reconstruct the rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixmim_eval.models.convvit import ConvArchitecture, ConvVisionTransformer
from pixmim_eval.models.vit import Architecture, VisionTransformer
from pretrain.decoder import Decoder
from pretrain.masking import Masking, gather_rows, mask_randomly
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
    """An encoder, the shared decoder, and the loss on masked patches.

    Args:
        image_size: pixels a side, a multiple of the patch times mask_unit.
        architecture: of the encoder: a ViT's, or a ConvViT's (ConvMAE).
        decoder: (width, depth, heads).
        mask_ratio: share of patches masked.
        mask_unit: patches a side of what is masked as a whole (2 in LSMAE).
        low_frequency: filter of the target image; None keeps all frequencies.
        normalise_target: per-patch normalisation of the target.
    """

    def __init__(
        self,
        image_size: int,
        architecture: Architecture | ConvArchitecture,
        decoder: tuple[int, int, int],
        *,
        mask_ratio: float = 0.75,
        mask_unit: int = 1,
        low_frequency: LowFrequency | None = None,
        normalise_target: bool = True,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.encoder: VisionTransformer | ConvVisionTransformer
        if isinstance(architecture, ConvArchitecture):
            self.encoder = ConvVisionTransformer(image_size, architecture, fusion=True)
        else:
            self.encoder = VisionTransformer(image_size, architecture)
        side, values = self.encoder.grid[0], architecture.patch**2 * 3
        class_token = isinstance(self.encoder, VisionTransformer)
        self.decoder = Decoder(architecture.dim, *decoder, side=side, values=values, class_token=class_token)
        self.mask_ratio, self.mask_unit = mask_ratio, mask_unit
        self.units_across = side // mask_unit
        self.units = self.units_across**2
        self.low_frequency = low_frequency
        self.normalise_target = normalise_target

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """The pretraining loss: mean squared error over the masked patches of the batch.

        Args:
            images: float [B, 3, H, W], normalised; what the encoder sees (the target is computed from them).
            noise: float [B, units], one number a patch or mask unit; see mask_randomly.

        Returns:
            float32 scalar.
        """
        masking = self.draw_mask(noise)
        prediction = self.decoder(self.encoder(images, masking.visible), masking)
        with torch.no_grad():
            target = gather_rows(self._target_patches(images), masking.masked)
            if self.normalise_target:
                target = normalise_patches(target)
        return F.mse_loss(prediction.float(), target)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, noise: Tensor) -> Reconstruction:
        """Predictions for every patch, for pictures and for comparison with public code; arguments as `forward`."""
        masking = self.draw_mask(noise)
        prediction = self.decoder.predict_all(self.encoder(images, masking.visible), masking).float()
        target = self._target_patches(images)
        wanted = normalise_patches(target) if self.normalise_target else target
        loss = (prediction - wanted).square().mean(dim=2)
        if self.normalise_target:
            variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
            prediction = prediction * (variance + 1e-6).sqrt() + mean
        return Reconstruction(target=target, prediction=prediction, mask=masking.mask(), loss=loss)

    def draw_mask(self, noise: Tensor) -> Masking:
        """Which patches are visible; noise as in `forward`."""
        return mask_randomly(noise, self.mask_ratio).split(self.units_across, self.mask_unit)

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


def build_autoencoder(recipe: Recipe, architecture: Architecture | ConvArchitecture) -> MaskedAutoencoder:
    """A recipe's masked autoencoder around an encoder, with random weights from torch's global generator."""
    return MaskedAutoencoder(
        recipe.image_size,
        architecture,
        (recipe.decoder_dim, recipe.decoder_depth, recipe.decoder_heads),
        mask_ratio=recipe.mask_ratio,
        mask_unit=recipe.mask_unit,
        low_frequency=LowFrequency(recipe.radius) if recipe.target == "lowfreq" else None,
        normalise_target=recipe.target != "pixels",
    )
