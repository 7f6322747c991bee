"""What the decoder is asked to reconstruct: pixels, per-patch normalised pixels, low-frequency pixels."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from pixmim_eval.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Centre = Literal["published", "dc"]


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut images into non-overlapping patches, row by row.

    Args:
        images: [B, 3, H, W], H and W multiples of patch.
        patch: side of a patch in pixels.

    Returns:
        [B, N, patch * patch * 3]; inside a patch the order is (row, column, channel).

    Source: MAE, official code (einsum nchpwq->nhwpqc).
    """
    batch, channels, height, width = images.shape
    grid = images.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`: [B, N, patch * patch * 3] -> [B, 3, rows * patch, columns * patch]."""
    batch, (rows, columns) = patches.shape[0], grid
    pixels = patches.reshape(batch, rows, columns, patch, patch, -1)
    return pixels.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows * patch, columns * patch)


def normalise_patches(patches: Tensor) -> Tensor:
    """Each patch less its mean, over its standard deviation: (t - mean) / sqrt(var + 1e-6), var unbiased (ddof 1).

    Args:
        patches: float [..., P], P values a patch.

    Source: MAE (arXiv 2111.06377) section 4.1, "per-patch normalization"; constants from the official code.
    """
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


class LowFrequency:
    """Images with only their low frequencies, as PixMIM reconstructs them.

    An ideal circular low-pass on de-normalised pixels; the result is the modulus of the complex inverse transform,
    normalised again. In "published", the circle's centre is the middle of the shifted spectrum, (size - 1) / 2,
    half a bin off the zero frequency at even sizes; that makes the filter asymmetric and the inverse complex. In
    "dc" the circle is centred on the zero frequency and the inverse is real.

    How it is computed: no bin beyond the radius is ever read, so the transform is two products with thin tables of
    cosines and sines (2 (radius + 1) columns instead of the image's width), and likewise back. The filter splits into
    an even part, which gives the real part of the inverse, and an odd part, which gives the imaginary part; all
    products stay real. De-normalising and normalising shift the zero frequency only.

    Args:
        radius: in frequency bins (cycles per image); a bin passes when its distance to the centre is <= radius.
        centre: "published" or "dc".
        mean, std: of each channel, the normalisation of the images.

    Raises:
        InputError: radius under 1, or an unknown centre.

    Source: PixMIM (arXiv 2303.02416) section 3.2; centre, boundary and modulus as in the released code.
    """

    def __init__(
        self,
        radius: float,
        centre: Centre = "published",
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        if not radius >= 1:  # below, the published circle holds no bin at even sizes
            raise InputError(
                "low-frequency target",
                expected="a radius of at least 1 frequency bin",
                found=f"{radius}",
                where="--radius",
                fix="Published: 40 at 224 px.",
            )
        if centre not in ("published", "dc"):
            raise InputError(
                "low-frequency target",
                expected='centre "published" or "dc"',
                found=f"{centre!r}",
                where="LowFrequency(centre=…)",
                fix='Take "published" for the paper\'s target.',
            )
        self.radius, self.centre = radius, centre
        self._offset = tuple(m / s for m, s in zip(mean, std, strict=True))  # de-normalised zero, in normalised units
        self._tables: dict[tuple[int, int, torch.device], _Tables] = {}

    def passband(self, height: int, width: int) -> Tensor:
        """The filter: bool [height, width] in the order of torch.fft.fft2 (zero frequency first)."""
        squares = []
        for size in (height, width):
            middle = (size - 1) / 2 if self.centre == "published" else size // 2
            squares.append(torch.fft.ifftshift((torch.arange(size, dtype=torch.float64) - middle) ** 2))
        return squares[0][:, None] + squares[1][None, :] <= self.radius**2

    def __call__(self, images: Tensor) -> Tensor:
        """Filter images.

        Args:
            images: float [B, 3, H, W], normalised with mean and std.

        Returns:
            float32 [B, 3, H, W], normalised; computed in float32 whatever the autocast state.
        """
        return self._filter(images)

    @torch.compiler.disable  # the tables are built at the first call, which a compiled graph cannot hold
    @torch.no_grad()
    def _filter(self, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        key = (height, width, images.device)
        if key not in self._tables:
            self._tables[key] = _Tables(self.passband(height, width), images.device)
        tables = self._tables[key]
        with torch.autocast(images.device.type, enabled=False):
            offset = torch.tensor(self._offset, device=images.device)
            planes = images.float().reshape(batch * channels, height, width)
            real, *imaginary = tables.filter(planes, offset.repeat(batch))
            modulus = imaginary[0].square_().addcmul_(real, real).sqrt_() if imaginary else real.abs_()
            return modulus.reshape(images.shape).sub_(offset[:, None, None])


class _Tables:
    """Cosine and sine tables of one image size, and the filter's weights between them.

    A real image x is described by its sums against cos/sin of k rows times cos/sin of l columns, k, l >= 0. The four
    bins (+-k, +-l) of the filter then mix these sums with the weights below (w = 1 for frequencies that are their own
    negative, else 2, counts each bin once). Frequencies stand in two groups, even and odd: half a period on, an even
    wave repeats and an odd one changes sign, so sums and differences of the image's halves are all that is multiplied
    (one radix-2 step, which halves the work). An axis of odd length has one group.
    """

    def __init__(self, passband: Tensor, device: torch.device) -> None:
        height, width = passband.shape
        rows, columns = _frequencies(passband.any(dim=1)), _frequencies(passband.any(dim=0))
        self.row_tables = _build_tables(rows, height).to(device, torch.float32)
        self.column_tables = _build_tables(columns, width).to(device, torch.float32)
        row, column = rows[:, None, :, None], columns[None, :, None, :]

        def bins(row_sign: int, column_sign: int) -> Tensor:
            return passband[(row_sign * row) % height, (column_sign * column) % width].double()

        count = _multiplicity(row, height) * _multiplicity(column, width)
        scale = count / (4 * height * width)
        same, opposite = (bins(1, 1), bins(-1, -1)), (bins(1, -1), bins(-1, 1))
        even = [(pair[0] + pair[1]) * scale for pair in (same, opposite)]
        odd = [(pair[0] - pair[1]) * scale for pair in (same, opposite)]
        weights = torch.stack((even[0] + even[1], even[0] - even[1], odd[0] + odd[1], odd[0] - odd[1]))
        self.weights = weights.to(device, torch.float32)[:, :, :, None]  # [4, row groups, column groups, 1, K, L]
        self.complex_inverse = bool(weights[2:].any())

    def filter(self, images: Tensor, offsets: Tensor) -> list[Tensor]:
        """[n, H, W] plus a constant each, offsets [n] -> real and imaginary part of the filtered images, [n, H, W]
        each; the real one alone if the other is zero for every image."""
        count, height, width = images.shape
        columns = _split(images, len(self.column_tables), axis=-1).flatten(1, 2) @ self.column_tables
        columns = columns.unflatten(1, (count, height))
        sums = self.row_tables.mT[:, None, None] @ _split(columns, len(self.row_tables), axis=-2)
        sums[0, 0, :, 0, 0] += offsets * (height * width)
        filtered = []
        for part in self._mix(sums):
            columns = _join(self.row_tables[:, None, None] @ part, axis=-2)
            joined = _join(columns.flatten(1, 2) @ self.column_tables.mT, axis=-1)
            filtered.append(joined.unflatten(0, (count, height)))
        return filtered

    def _mix(self, sums: Tensor) -> list[Tensor]:
        """The filter on sums [row groups, column groups, n, 2 K, 2 L]."""
        half_rows, half_columns = self.row_tables.shape[2] // 2, self.column_tables.shape[2] // 2
        cos_cos, cos_sin = sums[..., :half_rows, :].split(half_columns, dim=-1)
        sin_cos, sin_sin = sums[..., half_rows:, :].split(half_columns, dim=-1)
        even_sum, even_difference, odd_sum, odd_difference = self.weights
        real = (
            even_sum * cos_cos - even_difference * sin_sin,
            even_sum * cos_sin + even_difference * sin_cos,
            even_sum * sin_cos + even_difference * cos_sin,
            even_sum * sin_sin - even_difference * cos_cos,
        )
        parts = [real]
        if self.complex_inverse:
            imaginary = (
                -odd_sum * sin_cos - odd_difference * cos_sin,
                odd_difference * cos_cos - odd_sum * sin_sin,
                odd_sum * cos_cos - odd_difference * sin_sin,
                odd_difference * sin_cos + odd_sum * cos_sin,
            )
            parts.append(imaginary)
        return [torch.cat((torch.cat((cc, cs), -1), torch.cat((sc, ss), -1)), -2) for cc, cs, sc, ss in parts]


def _frequencies(passes: Tensor) -> Tensor:
    """Absolute frequencies 0…largest that pass (or one more), of a bool [size] in torch.fft's order.

    Returns:
        [2, K], the even ones and the odd ones; [1, K] where size is odd.
    """
    size = len(passes)
    index = torch.nonzero(passes)[:, 0]
    count = int(torch.minimum(index, size - index).max()) + 1
    if size % 2:
        return torch.arange(count)[None]
    return torch.arange(count + count % 2).reshape(-1, 2).T


def _build_tables(frequencies: Tensor, size: int) -> Tensor:
    """float64 [G, size / G, 2 K] for frequencies [G, K]: cosines of the frequencies, then sines."""
    groups = len(frequencies)
    turns = (torch.arange(size // groups)[:, None] * frequencies[:, None, :]) % size  # exact in integers
    angle = turns.double() * (2 * math.pi / size)
    return torch.cat((angle.cos(), angle.sin()), dim=2)


def _multiplicity(frequencies: Tensor, size: int) -> Tensor:
    """1 for frequencies that are their own negative (0 and size / 2), else 2; 0 beyond size / 2."""
    counts = torch.where((2 * frequencies) % size == 0, 1.0, 2.0).double()
    return torch.where(2 * frequencies > size, 0.0, counts)


def _split(values: Tensor, groups: int, axis: int) -> Tensor:
    """[groups, …]: sum and difference of the two halves along an axis, or the values themselves."""
    if groups == 1:
        return values[None]
    first, second = values.chunk(2, dim=axis)
    halves = first.new_empty((2, *first.shape))
    torch.add(first, second, out=halves[0])
    torch.sub(first, second, out=halves[1])
    return halves


def _join(groups: Tensor, axis: int) -> Tensor:
    """The inverse of `_split`, up to a factor that the filter's weights hold."""
    if len(groups) == 1:
        return groups[0]
    shape = list(groups.shape[1:])
    shape[axis] *= 2
    values = groups.new_empty(shape)
    first, second = values.chunk(2, dim=axis)
    torch.add(groups[0], groups[1], out=first)
    torch.sub(groups[0], groups[1], out=second)
    return values
