"""Files that are whole or absent: nothing half-written is ever read, whatever kills the process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Write to the temporary path this gives; on leaving, it is flushed to disk and renamed to `path`.

    An error inside removes the temporary file and leaves what was at `path` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name must outlive a power cut as well
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write bytes to a file that is afterwards either wholly new or as it was."""
    with replace_atomically(path) as temporary:
        temporary.write_bytes(data)


def cache_dir() -> Path:
    """Where indexes, features, predictions and heads are kept: $PIXMIM_CACHE, else pixmim-eval in the user's cache."""
    if "PIXMIM_CACHE" in os.environ:
        return Path(os.environ["PIXMIM_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pixmim-eval"
