from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pixmim_eval.corruptions import (
    CORRUPTIONS,
    PARAMETER_SETS,
    SEVERITIES,
    corrupt,
    describe_storage,
    resolve_parameters,
)
from pixmim_eval.corruptions.digital import store_as_jpeg
from pixmim_eval.errors import InputError
from pixmim_eval.metrics.corruption_error import ALEXNET_ERRORS

NOISE = [name for name in CORRUPTIONS if name.endswith("_noise")]
# Whose published parameters do not grow in every way: more frost on a brighter image, fewer but larger flakes of snow.
MIXED = {"glass_blur", "snow", "frost", "fog", "elastic_transform", "spatter", "saturate"}
DRAWS_NOTHING = [
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
    "gaussian_blur",
    "saturate",
]


@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_alike_alone_and_in_any_batch(
    name: str, severity: int, make_images: Callable[..., Tensor]
) -> None:
    images, index = make_images(30, 64, 48), torch.arange(30) * 7 + 2
    together = corrupt(images, name, severity, seed=5, index=index)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(corrupt(images[order], name, severity, seed=5, index=index[order]), together[order])
    for row in (0, 13, 29):
        alone = corrupt(images[row : row + 1], name, severity, seed=5, index=index[row : row + 1])
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_large_images_are_corrupted_alike_alone_and_in_any_batch(name: str, make_images: Callable[..., Tensor]) -> None:
    images, index = make_images(3, 224, 224), torch.tensor([4, 1, 9])
    together = corrupt(images, name, 5, seed=0, index=index)
    assert torch.equal(corrupt(images[1:2], name, 5, seed=0, index=index[1:2])[0], together[1])
    assert together.is_contiguous() and not torch.equal(together, images)


@pytest.mark.parametrize("name", NOISE)
def test_noise_depends_on_seed_image_and_severity(name: str) -> None:
    grey = torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)
    index = torch.tensor([3, 4])
    first = corrupt(grey, name, 2, seed=1, index=index)
    assert torch.equal(first, corrupt(grey, name, 2, seed=1, index=index))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, corrupt(grey, name, 2, seed=2, index=index))
    # Two severities do not share their random numbers: a scaled copy would correlate.
    other = corrupt(grey, name, 3, seed=1, index=index)
    pair = torch.stack([first.flatten().float(), other.flatten().float()])
    assert abs(torch.corrcoef(pair)[0, 1]) < 0.08


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name in DRAWS_NOTHING])
def test_what_draws_nothing_ignores_seed_and_index(name: str, make_images: Callable[..., Tensor]) -> None:
    images = make_images(2, 64, 64)
    first = corrupt(images, name, 2, seed=1, index=torch.tensor([3, 4]))
    assert torch.equal(first, corrupt(images, name, 2, seed=8, index=torch.tensor([0, 0])))


@pytest.mark.parametrize("parameters", PARAMETER_SETS)
@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - MIXED))
def test_each_severity_changes_images_more_than_the_one_before(name: str, parameters: str) -> None:
    size = PARAMETER_SETS[parameters]
    steps = torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    walks = steps.cumsum(2).cumsum(3)  # detail at every scale, more of it at the coarse ones
    images = (128 + walks / walks.std() * 50).clamp(0, 255).to(torch.uint8)
    changes = []
    for severity in SEVERITIES:
        corrupted = corrupt(images, name, severity, seed=0, index=torch.arange(8), parameters=parameters)
        changes.append((corrupted.double() - images).square().mean())
    assert all(mild < strong for mild, strong in pairwise(changes)), changes


def test_every_corruption_has_five_severities_in_every_set() -> None:
    for corruption in CORRUPTIONS.values():
        assert set(corruption.parameters) == set(PARAMETER_SETS)
        assert all(len(values) == len(SEVERITIES) for values in corruption.parameters.values())


def test_the_fifteen_are_those_with_an_error_of_alexnet() -> None:
    assert {name for name, c in CORRUPTIONS.items() if c.in_mce15} == set(CORRUPTIONS) & set(ALEXNET_ERRORS)


def test_the_catalogue_has_the_published_order_and_groups() -> None:
    published = (
        "gaussian_noise shot_noise impulse_noise | defocus_blur glass_blur motion_blur zoom_blur"
        " | snow frost fog brightness | contrast elastic_transform pixelate jpeg_compression"
        " | speckle_noise gaussian_blur spatter saturate"
    )
    groups = dict(zip(("noise", "blur", "weather", "digital", "extra"), published.split(" | "), strict=True))
    expected = [(name, group) for group, names in groups.items() for name in names.split() if name in CORRUPTIONS]
    assert [(name, corruption.group) for name, corruption in CORRUPTIONS.items()] == expected
    assert all(corruption.in_mce15 == (corruption.group != "extra") for corruption in CORRUPTIONS.values())


@pytest.mark.parametrize("parameters", ["imagenet-c", "tiny-imagenet-c"])
def test_the_jpeg_step_stores_what_was_corrupted(parameters: str, make_images: Callable[..., Tensor]) -> None:
    images, index = make_images(3, 64, 48), torch.arange(3)
    plain, stored = (
        corrupt(images, "shot_noise", 2, seed=1, index=index, parameters=parameters, jpeg_step=step)
        for step in (False, True)
    )
    assert torch.equal(stored, store_as_jpeg(plain)) and not torch.equal(stored, plain)


def test_the_files_of_cifar_c_have_no_jpeg_step(make_images: Callable[..., Tensor]) -> None:
    images, index = make_images(3, 32, 32), torch.arange(3)  # "auto" stands for cifar-c here
    plain, stored = (corrupt(images, "contrast", 2, seed=1, index=index, jpeg_step=step) for step in (False, True))
    assert torch.equal(stored, plain)


def test_storage_is_described_as_the_published_files_are() -> None:
    described = {name: describe_storage(name, jpeg_step=True) for name in PARAMETER_SETS}
    assert described == {"imagenet-c": "jpeg-85", "tiny-imagenet-c": "jpeg-85", "cifar-c": "lossless"}
    assert {describe_storage(name, jpeg_step=False) for name in PARAMETER_SETS} == {"lossless"}
    with pytest.raises(InputError, match="expected imagenet-c, tiny-imagenet-c, cifar-c, found 'auto'"):
        describe_storage("auto", jpeg_step=True)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(384, "imagenet-c"), (128, "imagenet-c"), (127, "tiny-imagenet-c"), (48, "tiny-imagenet-c"), (47, "cifar-c")],
)
def test_auto_is_the_set_published_for_the_nearest_size(size: int, expected: str) -> None:
    assert resolve_parameters("auto", size) == expected
    assert resolve_parameters("cifar-c", size) == "cifar-c"


def test_auto_looks_at_the_short_side(make_images: Callable[..., Tensor]) -> None:
    images, index = make_images(1, 60, 200), torch.tensor([0])
    chosen = corrupt(images, "contrast", 1, seed=0, index=index)
    assert torch.equal(chosen, corrupt(images, "contrast", 1, seed=0, index=index, parameters="tiny-imagenet-c"))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 130)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_may_have_any_size(name: str, shape: tuple[int, int], make_images: Callable[..., Tensor]) -> None:
    images = make_images(2, *shape)
    for parameters in PARAMETER_SETS:
        corrupted = corrupt(images, name, 5, seed=0, index=torch.arange(2), parameters=parameters)
        assert corrupted.shape == images.shape and corrupted.dtype == torch.uint8


def test_bad_input_is_named() -> None:
    images, index = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.arange(2)
    with pytest.raises(InputError, match="Did you mean gaussian_noise"):
        corrupt(images, "gausian_noise", 1, seed=0, index=index)
    with pytest.raises(InputError, match="Choose one of them"):
        corrupt(images, "zzz", 1, seed=0, index=index)
    for severity in (0, 6, 2.5):
        with pytest.raises(InputError, match="severity: expected 1, 2, 3, 4 or 5"):
            corrupt(images, "contrast", severity, seed=0, index=index)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="imagenet-c, tiny-imagenet-c, cifar-c, found 'imagenet'"):
        corrupt(images, "contrast", 1, seed=0, index=index, parameters="imagenet")
    for wrong in (images.float(), images[0], images[:, :1], images[:0], images[..., :0]):
        with pytest.raises(InputError, match=r"images to corrupt: expected uint8 \[B, 3, H, W\]"):
            corrupt(wrong, "contrast", 1, seed=0, index=torch.arange(len(wrong)))
    for wrong_index in (index[:1], index.int(), index[:, None]):
        with pytest.raises(InputError, match=r"expected int64 \[2\]"):
            corrupt(images, "contrast", 1, seed=0, index=wrong_index)
