"""Batches: the same whatever the workers, the processes and the place where images are kept."""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from pixmim_eval.data import open_manifest
from pixmim_eval.data.crops import CenterCrop, Crop, RandomResizedCrop, SimpleResizedCrop, sample_flips
from pixmim_eval.data.loader import TrainingLoader, evaluation_batches
from pixmim_eval.data.sources.decode import bad_image
from pixmim_eval.data.transforms import apply_evaluation
from pixmim_eval.errors import BadImageError, InputError
from pixmim_eval.seeds import derive_seed
from pixmim_eval.types import Batch, LabelSpace, Manifest, Preprocessing


class NoiseImages:
    """Images of noise; the rows in `broken` cannot be read, and those in `wide` are wider."""

    def __init__(self, broken: Sequence[int] = (), wide: Sequence[int] = ()) -> None:
        self.broken, self.wide = broken, wide

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        images = []
        for row in rows:
            assert isinstance(row, int)
            if row in self.broken:
                raise bad_image("damage", f"key-{row}")
            shape = (40, 56 if row in self.wide else 40, 3)
            images.append(np.random.default_rng(row).integers(0, 256, shape, dtype=np.uint8))
        return images


def noise(count: int = 50, blocks: np.ndarray | None = None, **kinds: Sequence[int]) -> Manifest:
    keys = np.array([f"key-{row}" for row in range(count)])
    space = LabelSpace("names-3", ("a", "b", "c"))
    return Manifest("noise", keys, np.arange(count) % 3, space, "0" * 16, NoiseImages(**kinds), blocks=blocks)


def loader(manifest: Manifest, crop: Crop | None = None, **options: Any) -> TrainingLoader:
    defaults: dict[str, Any] = {"batch_size": 12, "seed": 1, "workers": 0, "in_memory": "no"}
    return TrainingLoader(manifest, crop or RandomResizedCrop(24), **{**defaults, **options})


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(getattr(one, field), getattr(two, field))
        for one, two in zip(first, second, strict=True)
        for field in ("images", "index", "labels")
    )


# Evaluation


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_gives_every_row_in_order(workers: int) -> None:
    manifest, preprocessing = noise(wide=range(0, 50, 4)), Preprocessing(24, 28)
    rows = np.arange(49, 2, -3)
    batches = list(evaluation_batches(manifest, preprocessing, rows=rows, batch_size=5, workers=workers))
    assert [len(batch.index) for batch in batches] == [5, 5, 5, 1]
    assert torch.cat([batch.index for batch in batches]).tolist() == rows.tolist()
    assert torch.cat([batch.labels for batch in batches]).tolist() == (rows % 3).tolist()
    images = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).numpy()
    expected = [apply_evaluation(image, preprocessing, None) for image in manifest.source.read(rows.tolist())]
    assert np.array_equal(images, np.stack(expected))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_stops_and_is_named(workers: int) -> None:
    batches = evaluation_batches(
        noise(broken=[7]), Preprocessing(24, 24), rows=np.arange(20), batch_size=5, workers=workers
    )
    assert next(batches).index.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(BadImageError, match="key-7"):
        next(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_skipped_and_named(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    broken = [1, 5, 6, 7, 8, 9, 13]
    with caplog.at_level(logging.WARNING):
        batches = list(
            evaluation_batches(
                noise(broken=broken), Preprocessing(24, 24), rows=np.arange(20), batch_size=5, workers=workers,
                on_bad_image="skip",
            )
        )  # fmt: skip
    assert [len(batch.index) for batch in batches] == [4, 4, 5]  # the second batch was all bad
    index = torch.cat([batch.index for batch in batches]).tolist()
    assert index == [row for row in range(20) if row not in broken]
    assert all(batch.images.shape == (len(batch.index), 3, 24, 24) for batch in batches)
    assert [record.getMessage().split("in ")[1].split(")")[0] for record in caplog.records] == [
        f"key-{row}" for row in broken
    ]


def test_skip_skips_nothing_but_bad_images() -> None:
    manifest = replace(noise(wide=[3]), ready_size=40)
    batches = evaluation_batches(
        manifest, Preprocessing(40, 40), rows=np.arange(5), batch_size=5, workers=0, on_bad_image="skip"
    )
    with pytest.raises(InputError, match=r"40 x 40 pixels, found 40 x 56 \(in noise, key-3"):
        list(batches)
    with pytest.raises(InputError, match="stop or skip"):
        list(evaluation_batches(noise(), Preprocessing(24, 24), rows=np.arange(5), batch_size=5, workers=0,
                                on_bad_image="ignore"))  # fmt: skip


def test_errors_survive_the_way_back_from_a_worker() -> None:
    error = bad_image("damage", "key-1")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, BadImageError)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


# Training


def test_an_epoch_takes_each_row_at_most_once_in_an_order_of_its_own() -> None:
    data = loader(noise())
    epochs = [torch.cat([batch.index for batch in data.batches(epoch)]).tolist() for epoch in range(3)]
    assert data.steps_per_epoch == 4
    for rows in epochs:
        assert len(set(rows)) == len(rows) == 48
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != sorted(epochs[0])
    again = torch.cat([batch.index for batch in loader(noise()).batches(1)]).tolist()
    assert again == epochs[1]
    other = torch.cat([batch.index for batch in loader(noise(), seed=2).batches(1)]).tolist()
    assert other != epochs[1]


def test_crops_follow_seed_epoch_and_row() -> None:
    manifest, crop = noise(), SimpleResizedCrop(24)
    for batch in loader(manifest, crop).batches(5):
        boxes = crop.sample(*torch.full((2, 12), 40), seed=derive_seed(1, "crop", 5), index=batch.index)
        flips = sample_flips(derive_seed(1, "flip", 5), batch.index)
        for row, box, flip, image in zip(batch.index.tolist(), boxes, flips, batch.images, strict=True):
            expected = crop.apply(manifest.source.read([row])[0], box)
            assert np.array_equal(image.permute(1, 2, 0).numpy(), expected[:, ::-1] if flip else expected)
        assert batch.labels.tolist() == (batch.index % 3).tolist()


@pytest.mark.parametrize("in_memory", ["yes", "no"])
@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (1, 3), (2, 3), (4, 1)])
def test_a_step_is_the_same_for_any_number_of_processes(in_memory: str, world_size: int, accumulate: int) -> None:
    whole = list(loader(noise(), in_memory=in_memory).batches(0))
    ranks = [
        list(loader(noise(), in_memory=in_memory, world_size=world_size, rank=rank, accumulate=accumulate).batches(0))
        for rank in range(world_size)
    ]
    for step, expected in enumerate(whole):
        parts = [rank[step * accumulate + micro] for micro in range(accumulate) for rank in ranks]
        assert torch.equal(torch.cat([part.index for part in parts]), expected.index)
        assert torch.equal(torch.cat([part.images for part in parts]), expected.images)


@pytest.mark.parametrize("in_memory", ["yes", "no"])
def test_a_run_goes_on_from_the_middle(in_memory: str) -> None:
    data = loader(noise(), in_memory=in_memory, accumulate=2)
    assert equal(list(data.batches(3, first_step=2)), list(data.batches(3))[4:])
    assert not list(data.batches(3, first_step=4))


def test_workers_change_nothing() -> None:
    manifest = noise(wide=range(0, 50, 3))
    assert equal(list(loader(manifest, workers=2).batches(1)), list(loader(manifest).batches(1)))


@pytest.mark.parametrize("crop", [RandomResizedCrop(24), SimpleResizedCrop(40), CenterCrop(24)], ids=repr)
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_and_storage_give_the_same_batches(crop: Crop, workers: int) -> None:
    stored = list(loader(noise(), crop).batches(2))
    kept = list(loader(noise(), crop, in_memory="yes", workers=workers).batches(2))
    for one, two in zip(stored, kept, strict=True):
        assert torch.equal(one.index, two.index)
        assert torch.equal(one.labels, two.labels)
        assert (one.images.int() - two.images.int()).abs().max() <= 1


def test_auto_keeps_in_memory_what_has_one_size_and_fits() -> None:
    class Counted(NoiseImages):
        reads = 0

        def read(self, rows: Sequence[int]) -> list[np.ndarray]:
            Counted.reads += len(rows)
            return super().read(rows)

    def reads_an_epoch(manifest: Manifest, **options: Any) -> int:
        data = loader(replace(manifest, source=Counted(**vars(manifest.source))), in_memory="auto", **options)
        Counted.reads = 0
        list(data.batches(0))
        return Counted.reads

    assert reads_an_epoch(noise()) == 0
    assert reads_an_epoch(noise(wide=[17])) == 48  # not among those looked at first
    assert reads_an_epoch(noise(), memory_budget_bytes=50 * 40 * 40 * 3 - 1) == 48


def test_what_cannot_be_kept_in_memory_is_said() -> None:
    with pytest.raises(InputError, match=r"found 40 x 56 \(in noise, key-17"):
        loader(noise(wide=[17]), in_memory="yes")
    with pytest.raises(InputError, match=r"at most 0\.0 GiB"):
        loader(noise(), in_memory="yes", memory_budget_bytes=1000)
    for in_memory in ("yes", "auto"):
        with pytest.raises(BadImageError, match="key-17"):
            loader(noise(broken=[17]), in_memory=in_memory)


def test_a_bad_image_stops_training_and_is_named() -> None:
    with pytest.raises(BadImageError, match="key-17"):
        list(loader(noise(48, broken=[17]), workers=2).batches(0))


def test_impossible_batches_are_refused() -> None:
    with pytest.raises(InputError, match="at most the number of images, 50"):
        loader(noise(), batch_size=51)
    with pytest.raises(InputError, match="auto or yes or no"):
        loader(noise(), in_memory="maybe")
    with pytest.raises(InputError, match="a multiple of processes x accumulation, 8"):
        loader(noise(), world_size=4, accumulate=2)


def test_storage_blocks_are_shuffled_by_window() -> None:
    blocks = np.repeat(np.arange(40), 10)
    data = loader(noise(400, blocks), batch_size=40)
    orders = [torch.cat([batch.index for batch in data.batches(epoch)]).numpy() for epoch in range(2)]
    for order in orders:
        assert np.array_equal(np.sort(order), np.arange(400))
        windows = order.reshape(5, 80)
        assert all(len(np.unique(blocks[window])) == 8 for window in windows)
        assert all(len(np.unique(blocks[window[:40]])) >= 6 for window in windows)  # mixed inside the window
        assert not np.array_equal(np.unique(blocks[windows[0]]), np.arange(8))  # and the windows are not the file's
    assert not np.array_equal(orders[0], orders[1])
    kept = loader(noise(400, blocks), batch_size=40, in_memory="yes")
    assert len(np.unique(blocks[next(kept.batches(0)).index])) > 16


def test_parquet_is_read_by_workers(tmp_path: Path) -> None:
    images = []
    for row in range(30):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(row).integers(0, 256, (20, 20 + row, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "png")
        images.append({"bytes": buffer.getvalue(), "path": f"{row}.png"})
    table = pyarrow.table({"image": images, "wnid": ["n01440764"] * 30})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    manifest = open_manifest(tmp_path / "a.parquet")
    one, two = (list(loader(manifest, workers=workers, batch_size=6).batches(0)) for workers in (0, 2))
    assert len(one) == 5
    assert equal(one, two)


@pytest.mark.parametrize("in_memory", ["yes", "no"])
def test_training_skips_a_bad_image_and_keeps_the_rest_of_its_batch(in_memory: str) -> None:
    whole = list(loader(noise(), in_memory=in_memory).batches(0))
    bad = int(whole[1].index[5])
    with pytest.raises(BadImageError, match=f"key-{bad}"):
        list(loader(noise(broken=[bad]), in_memory=in_memory).batches(0))
    skipping = list(loader(noise(broken=[bad]), in_memory=in_memory, on_bad_image="skip").batches(0))
    assert equal(skipping[:1] + skipping[2:], whole[:1] + whole[2:])
    kept = whole[1].index != bad
    assert torch.equal(skipping[1].index, whole[1].index[kept])
    assert torch.equal(skipping[1].images, whole[1].images[kept])


@pytest.mark.parametrize("in_memory", ["yes", "no"])
def test_a_micro_batch_of_bad_images_alone_is_named(in_memory: str) -> None:
    bad = next(loader(noise(), in_memory=in_memory, accumulate=4).batches(0)).index.tolist()
    assert len(bad) == 3
    skipping = loader(noise(broken=bad), in_memory=in_memory, accumulate=4, on_bad_image="skip")
    with pytest.raises(InputError, match=rf"none: all 3 were skipped \(in noise, such as key-{bad[0]}"):
        next(skipping.batches(0))
