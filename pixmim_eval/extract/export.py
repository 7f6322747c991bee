"""Corrupted images as files, in the published layout of ImageNet-C."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image

from pixmim_eval.corruptions import SEVERITIES, describe_storage, resolve_parameters
from pixmim_eval.errors import InputError
from pixmim_eval.extract import select_rows
from pixmim_eval.extract.passes import DecodedImages
from pixmim_eval.progress import progress
from pixmim_eval.types import Batch, Manifest, Preprocessing, SuiteConfig


def export_corrupted(manifest: Manifest, preprocessing: Preprocessing, config: SuiteConfig, out: Path) -> int:
    """Write OUT/CORRUPTION/SEVERITY/CLASS/IMAGE for every cell: the images that the robustness suite scores.

    A cell's folder gets its name when it is complete; cells that are there stay as they are, so a stopped export goes
    on where it was. Files are JPEG of quality 85, as the published ones; PNG where config.jpeg_step is off or the
    parameter set was published without loss.

    Args:
        manifest: clean images with labels.
        preprocessing: geometry before corruption; normalisation plays no part.
        config: corruptions, rows, seed, device.
        out: the folder.

    Returns:
        The number of cells written.

    Raises:
        InputError: two images that would have one name, or an image that cannot be read.
    """
    rows = select_rows(manifest, config.limit)
    storage = describe_storage(resolve_parameters("auto", preprocessing.size), config.jpeg_step)
    files = _name_files(manifest, rows, ".png" if storage == "lossless" else ".JPEG")
    images = DecodedImages(manifest, preprocessing, rows, replace(config, jpeg_step=False))  # its files are that step
    cells = [(name, severity) for name in config.corruptions for severity in SEVERITIES]
    missing = [(name, severity) for name, severity in cells if not (out / name / str(severity)).exists()]
    with progress(description="corrupted images", total=len(missing), unit="cell") as bar:
        for name, severity in missing:
            folder = out / name / str(severity)
            temporary = folder.with_name(f".{severity}-{os.getpid()}.tmp")
            for parent in {temporary / file.parent for file in files.values()}:
                parent.mkdir(parents=True)
            try:
                for batch in images.corrupt(rows, name, severity):
                    _write_images(batch, temporary, files)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            bar.update()
    return len(missing)


def _write_images(batch: Batch, folder: Path, files: dict[int, PurePosixPath]) -> None:
    pixels = batch.images.permute(0, 2, 3, 1).cpu().numpy()
    paths = [folder / files[row] for row in batch.index.tolist()]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # encoding releases the interpreter
        list(pool.map(lambda image, path: Image.fromarray(image).save(path, quality=85), pixels, paths))


def _name_files(manifest: Manifest, rows: np.ndarray, ending: str) -> dict[int, PurePosixPath]:
    """CLASS/IMAGE of each row. Raises InputError where two rows have the same, or images have no labels."""
    classes = manifest.label_space.classes
    if not classes:
        raise InputError(
            "images to corrupt",
            expected="images with labels, which name the folders",
            found="none",
            where=manifest.name,
            fix="Sort the images into class folders.",
        )
    files = {
        int(row): PurePosixPath(classes[manifest.labels[row]], PurePosixPath(manifest.keys[row]).stem + ending)
        for row in rows
    }
    counts = Counter(files.values())
    doubles = [str(file) for file, count in counts.items() if count > 1]
    if doubles:
        raise InputError(
            "names of images",
            expected="one image a name in each class",
            found=f"{len(doubles)} names of several, e.g. {', '.join(doubles[:3])}",
            where=manifest.name,
            fix="Rename the images.",
        )
    return files
