"""UperNet's head and the auxiliary one, and the norms and dropout that are in them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as group
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F

POOLED_SIDES = (1, 2, 3, 6)
CLASSIFIER_DEVIATION = 0.01


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all processes, on any device: torch's synchronised one knows GPUs alone."""

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape; every process has as many images."""
        if not self.training or not group.is_available() or not group.is_initialized() or group.get_world_size() == 1:
            return super().forward(maps)
        values = maps.float()
        count = group.get_world_size() * values.numel() // values.shape[1]
        mean = all_reduce(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = all_reduce(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr,arg-type]
            self.running_var.lerp_(variance * count / max(count - 1, 1), self.momentum)  # type: ignore[union-attr,arg-type]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(maps.dtype)


class RowDropout(nn.Module):
    """Drops whole channels of single images, by random numbers that are given.

    Args:
        rate: chance that an image is without a channel.
        channels: number C of channels.

    Source: torch's Dropout2d, which draws its numbers batch by batch.
    """

    def __init__(self, rate: float, channels: int) -> None:
        super().__init__()
        self.rate, self.channels = rate, channels
        self._numbers: Tensor | None = None

    def begin(self, numbers: Tensor) -> None:
        """Take the random numbers of the next forward pass, float [B, C] in [0, 1)."""
        self._numbers = numbers

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape; as it is in eval mode."""
        if not self.training or self.rate == 0 or self._numbers is None:
            return maps
        kept = (self._numbers >= self.rate).to(maps.dtype) / (1 - self.rate)
        return maps * kept[:, :, None, None]


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; He's initialisation for what follows a ReLU's output."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(convolution, SharedBatchNorm(outputs), nn.ReLU(inplace=True))


class PixelClassifier(nn.Module):
    """Dropout of channels, then one linear layer at every place."""

    def __init__(self, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = RowDropout(dropout, channels)
        self.linear = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(self.linear.weight, std=CLASSIFIER_DEVIATION)
        nn.init.zeros_(self.linear.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K, H, W], float32, autocast or not: bf16 would tie the ranks of classes."""
        with torch.autocast(maps.device.type, enabled=False):
            return self.linear(self.dropout(maps.float()))


class UperHead(nn.Module):
    """A pooling pyramid on the coarsest map, a feature pyramid down to the finest, all levels together, a classifier.

    Args:
        dims: channels of the maps, finest first.
        channels: width of everything inside.
        classes: number K of classes.
        dropout: before the classifier.

    Source: Xiao et al., ECCV 2018 (arXiv 1807.10221); mmsegmentation's UPerHead: pools of 1, 2, 3 and 6 a side,
        bilinear resizing with corners not aligned, batch norm and ReLU after every convolution.
    """

    def __init__(self, dims: Sequence[int], channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), ConvNorm(dims[-1], channels, 1)) for side in POOLED_SIDES
        )
        self.bottleneck = ConvNorm(dims[-1] + len(POOLED_SIDES) * channels, channels, 3)
        self.laterals = nn.ModuleList(ConvNorm(dim, channels, 1) for dim in dims[:-1])
        self.outputs = nn.ModuleList(ConvNorm(channels, channels, 3) for _ in dims[:-1])
        self.fusion = ConvNorm(len(dims) * channels, channels, 3)
        self.classifier = PixelClassifier(channels, classes, dropout)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps [B, C_i, H_i, W_i], finest first -> logits [B, K, H_0, W_0]."""
        top = maps[-1]
        pooled = [resize_maps(pool(top), top.shape[2:]) for pool in self.pools]
        levels = [self.bottleneck(torch.cat((top, *pooled), dim=1))]
        for lateral, finer in zip(reversed(self.laterals), reversed(maps[:-1]), strict=True):
            levels.insert(0, lateral(finer) + resize_maps(levels[0], finer.shape[2:]))
        refined = [output(level) for output, level in zip(self.outputs, levels, strict=False)] + levels[-1:]
        together = [resize_maps(level, maps[0].shape[2:]) for level in refined]
        return self.classifier(self.fusion(torch.cat(together, dim=1)))


class FcnHead(nn.Module):
    """One convolution and a classifier: what the auxiliary loss is of.

    Args:
        dim: channels of the map.
        channels, classes, dropout: as UperHead.

    Source: mmsegmentation's FCNHead with one convolution of 3 x 3 and no concatenation.
    """

    def __init__(self, dim: int, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.convolution = ConvNorm(dim, channels, 3)
        self.classifier = PixelClassifier(channels, classes, dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K, H, W]."""
        return self.classifier(self.convolution(maps))


def resize_maps(maps: Tensor, shape: Sequence[int]) -> Tensor:
    """Bilinear, corners not aligned, without antialiasing: [B, C, H, W] -> [B, C, *shape]."""
    if tuple(maps.shape[2:]) == tuple(shape):
        return maps
    return F.interpolate(maps, size=tuple(shape), mode="bilinear", align_corners=False)
