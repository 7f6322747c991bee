"""DeiT III (arXiv 2204.07118): a ViT with LayerScale and learned positions, trained with labels."""

from __future__ import annotations

from timm.layers import DropPath
from timm.loss import BinaryCrossEntropy
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pixmim_eval.models.vit import Architecture
from pretrain.recipes import Recipe

LAYER_SCALE = 1e-4


class SupervisedClassifier(nn.Module):
    """timm's ViT, set up as DeiT III's, and its loss.

    Args:
        image_size: pixels a side, a multiple of the patch.
        architecture: see Architecture.
        classes: number K of classes.
        drop_path: probability that an image skips a residual branch, the same in every block.

    Source: DeiT III and its code: LayerScale from 1e-4, positions for the patches but not for the class token, which
        the classifier reads; LayerNorm eps 1e-6; truncated normal weights of deviation 0.02, and the same for class
        token and positions.
    """

    def __init__(self, image_size: int, architecture: Architecture, classes: int, *, drop_path: float) -> None:
        super().__init__()
        self.architecture = architecture
        self.network = VisionTransformer(
            img_size=image_size,
            patch_size=architecture.patch,
            embed_dim=architecture.dim,
            depth=architecture.depth,
            num_heads=architecture.heads,
            num_classes=classes,
            init_values=LAYER_SCALE,
            no_embed_class=True,
        )
        nn.init.trunc_normal_(self.network.get_parameter("cls_token"), std=0.02)
        for block in self.network.blocks:  # timm's own option rises with depth
            block.drop_path1 = block.drop_path2 = DropPath(drop_path)
        self.loss = BinaryCrossEntropy(smoothing=0.0, target_threshold=0.0)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss: mean binary cross-entropy over images and classes, where every class in the image counts whole.

        Args:
            images: float [B, 3, H, W], normalised.
            targets: float [B, K], the share of each class; above 0 is 1.

        Returns:
            float32 scalar.

        Source: DeiT III's code, which sets the targets of mixed images to 0 and 1.
        """
        return self.loss(self.network(images).float(), targets)

    def public_tensors(self) -> dict[str, Tensor]:
        """All weights under timm's keys."""
        return dict(self.network.state_dict())


def build(recipe: Recipe, classes: int) -> SupervisedClassifier:
    """The model of a recipe, with random weights from torch's global generator."""
    architecture = Architecture(recipe.patch, recipe.dim, recipe.depth, recipe.heads)
    return SupervisedClassifier(recipe.image_size, architecture, classes, drop_path=recipe.drop_path)
