"""Augmentations: timm's own, and functions of seed, epoch and image alone."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor

from pixmim_eval.data.crops import RandomResizedCrop
from pixmim_eval.data.loader import TrainingLoader
from pixmim_eval.transfer.augmentation import Mixer, RandAugment, kept_generators, set_generators
from pixmim_eval.transfer.recipes import RECIPES
from pixmim_eval.types import Preprocessing
from tests.fakes import make_manifest

RECIPE = replace(RECIPES["mae-b"], random_erasing=0.0)
POLICY = RECIPE.rand_augment
SETTINGS = Preprocessing(16, 16)


def draw_images(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 16, 16, generator=generator)
    return images, torch.randint(0, 7, (count,), generator=generator), torch.arange(100, 100 + count)


def mix(mixer: Mixer, rows: slice = slice(None), *, epoch: int = 0, group: int = 8) -> tuple[Tensor, Tensor]:
    images, labels, index = draw_images(16)
    return mixer(images[rows].clone(), labels[rows], index[rows], epoch=epoch, group=group)


def test_generators_are_put_back() -> None:
    set_generators(1)
    wanted = random.random(), np.random.rand(), torch.rand(1)
    set_generators(1)
    with kept_generators():
        set_generators(99)
        random.random(), np.random.rand(5), torch.rand(5)
    assert (random.random(), np.random.rand(), torch.rand(1)) == wanted


def keep_bits(image: Image.Image, bits: int) -> Image.Image:
    """Pillow's posterize before it refused to keep no bits."""
    return image.point([level & ~(2 ** (8 - bits) - 1) for level in range(256)] * 3)


def test_rand_augment_is_that_of_timm_with_the_published_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageOps, "posterize", keep_bits)
    mean = tuple(round(255 * value) for value in SETTINGS.mean)
    theirs = rand_augment_transform(
        POLICY, {"translate_const": int(16 * 0.45), "img_mean": mean, "interpolation": Image.Resampling.BICUBIC}
    )
    ours, image = RandAugment(POLICY, SETTINGS), make_manifest(1).source.read([0])[0]
    changed = black = 0
    for seed in range(800):
        set_generators(seed)
        expected = np.asarray(theirs(Image.fromarray(image)))
        found = ours(image, seed)
        assert np.array_equal(found, expected)
        changed += not np.array_equal(found, image)
        black += not found.any()
    assert changed / 800 == pytest.approx(0.75, abs=0.06)  # each of two changes is left out half of the time
    assert black  # by posterising to 0 bits


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_is_changed_alike_wherever_and_in_whatever_batch_it_is_read(workers: int) -> None:
    def read(batch_size: int, workers: int, epoch: int) -> dict[int, np.ndarray]:
        loader = TrainingLoader(
            make_manifest(24),
            RandomResizedCrop(16),
            batch_size=batch_size,
            seed=5,
            workers=workers,
            change=RandAugment(POLICY, SETTINGS),
        )
        batches = list(loader.batches(epoch))
        return {
            int(row): image.numpy() for batch in batches for row, image in zip(batch.index, batch.images, strict=True)
        }

    wanted, found, later = read(24, 0, 3), read(6, workers, 3), read(24, 0, 4)
    assert wanted.keys() == found.keys() == set(range(24))
    assert all(np.array_equal(found[row], wanted[row]) for row in wanted)
    assert sum(np.array_equal(later[row], wanted[row]) for row in wanted) < 3


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_groups_are_mixed_as_their_targets_say(mixup: float, cutmix: float) -> None:
    mixer = Mixer(replace(RECIPE, mixup=mixup, cutmix=cutmix), 7, seed=4)
    images, labels, _ = draw_images(16)
    kinds = set()
    for epoch in range(8):
        found, targets = mix(mixer, epoch=epoch)
        assert torch.allclose(targets.sum(dim=1), torch.ones(16))
        for part in (slice(0, 8), slice(8, 16)):
            own, other = images[part], images[part].flip(0)
            on, off = 0.9 + 0.1 / 7, 0.1 / 7
            smooth = torch.full((8, 7), off).scatter(1, labels[part, None], on)
            pair = labels[part] != labels[part].flip(0)
            weights = ((targets[part] - off) / 0.9).gather(1, labels[part, None])[pair, 0]
            weight = weights[0]
            torch.testing.assert_close(weights, weight.expand(len(weights)))
            torch.testing.assert_close(targets[part], weight * smooth + (1 - weight) * smooth.flip(0))
            covered = (found[part] != own).any(dim=1)  # [8, H, W]
            if torch.allclose(found[part], weight * own + (1 - weight) * other, atol=1e-5):
                kinds.add("mixup")
            else:
                kinds.add("cutmix")
                assert torch.equal(found[part], torch.where(covered[:, None], other, own))
                assert float(covered[0].float().mean()) == pytest.approx(1 - float(weight), abs=1e-6)
    assert kinds == {name for name, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha}


def test_how_a_group_is_mixed_depends_on_its_images_and_the_epoch_alone() -> None:
    mixer = Mixer(replace(RECIPE, random_erasing=0.5), 7, seed=4)
    whole, targets = mix(mixer)
    second, second_targets = mix(mixer, slice(8, 16))
    assert torch.equal(whole[8:], second)
    assert torch.equal(targets[8:], second_targets)
    assert not torch.equal(whole, mix(mixer, epoch=1)[0])
    assert not torch.equal(whole, mix(Mixer(RECIPE, 7, seed=5))[0])


def test_erasing_puts_noise_of_each_pixel_into_one_rectangle_of_a_quarter_of_the_images() -> None:
    mixer = Mixer(replace(RECIPE, random_erasing=0.25, mixup=0.0, cutmix=0.0), 7, seed=1)
    images, index = torch.full((2000, 3, 16, 16), 9.0), torch.arange(2000)
    found, targets = mixer(images.clone(), torch.zeros(2000, dtype=torch.int64), index, epoch=0, group=8)
    erased = (found != 9.0).all(dim=1)
    hit = erased.flatten(1).any(dim=1)
    assert float(hit.float().mean()) == pytest.approx(0.25, abs=0.04)
    for mask in erased[hit][:50]:
        rows, columns = mask.any(dim=1).sum(), mask.any(dim=0).sum()
        assert mask.sum() == rows * columns
        assert 0.01 < float(mask.float().mean()) < 0.4
    noise = found[found != 9.0]
    assert abs(float(noise.mean())) < 0.03
    assert float(noise.std()) == pytest.approx(1.0, abs=0.03)
    torch.testing.assert_close(targets[0], torch.tensor([0.9 + 0.1 / 7] + [0.1 / 7] * 6))


def test_images_that_were_skipped_leave_even_groups() -> None:
    mixer = Mixer(RECIPE, 7, seed=4)
    found, targets = mix(mixer, slice(0, 11))
    assert len(found) == len(targets) == 10
    single, target = mix(mixer, slice(3, 4))  # has nothing to be mixed with
    assert len(single) == 1 and target.sum() == pytest.approx(1) and target.max() == pytest.approx(0.9 + 0.1 / 7)
