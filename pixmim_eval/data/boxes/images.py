"""The images that boxes were drawn on, where they lie where they are published beside the boxes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pixmim_eval.data.problems import Problem
from pixmim_eval.data.sources.assemble import assemble
from pixmim_eval.data.sources.folder import FolderSource
from pixmim_eval.progress import progress
from pixmim_eval.types import Manifest


def read_size(file: bytes | Path) -> tuple[int, int]:
    """Height and width from the header of an image, given as bytes or by path; 0, 0 where there is none."""
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0


def find_images(
    name: str, folders: Sequence[Path], keys: Sequence[str], problems: list[Problem]
) -> tuple[np.ndarray | None, Manifest | None]:
    """Sizes and manifest of images whose keys are their paths, from the first folder that holds one of the first three.

    Returns:
        sizes: int64 [N, 2] of their headers, 0 where there is none; None where no folder holds them.
        manifest: see open_images.
    """
    root = next((folder for folder in folders if any((folder / key).is_file() for key in keys[:3])), None)
    if root is None:
        return None, None
    paths = progress(keys, description=f"reading image sizes of {name}", unit="image", quiet=len(keys) < 10_000)
    sizes = np.array([read_size(root / key) for key in paths], dtype=np.int64).reshape(-1, 2)
    return sizes, open_images(name, root, keys, keys, sizes, problems)


def open_images(
    name: str, root: Path, files: Sequence[str], keys: Sequence[str], sizes: np.ndarray, problems: list[Problem]
) -> Manifest | None:
    """The images as a manifest without labels; None where some are not there, which are listed.

    Args:
        name: of the manifest.
        root: folder of the images.
        files: N paths from there, checked not to lead out of it.
        keys: N names for the list of problems.
        sizes: int64 [N, 2], of the images' headers; 0 where there is none.
        problems: gets "no image", unless not one image is there.
    """
    there = (sizes > 0).all(axis=1)
    if not there.any():
        return None
    problems += [Problem("no image", keys[row], f"{root}/{files[row]}") for row in np.flatnonzero(~there).tolist()]
    if not there.all():
        return None
    lengths = np.array([(root / file).stat().st_size for file in files], dtype=np.int64)
    return assemble(name, str(root), FolderSource(root, np.array(files, dtype=str)), None, lengths)
