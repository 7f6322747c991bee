"""Many small entries of JSON in little memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np


class Entries(Sequence[dict[str, Any]]):
    """A list of entries that is one block of bytes, each parsed when it is asked for.

    As objects, the outlines of COCO's training set take gigabytes, and every process that reads images would come to
    have them once more: whoever looks at an object of Python writes to its count of references.

    Args:
        entries: of what JSON can say.
    """

    def __init__(self, entries: Iterable[dict[str, Any]]) -> None:
        content, ends = bytearray(), [0]
        for entry in entries:
            content += json.dumps(entry, separators=(",", ":")).encode()
            ends.append(len(content))
        self._content = np.frombuffer(bytes(content), dtype=np.uint8)
        self._ends = np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return [self._parse(one) for one in range(*place.indices(len(self)))]
        return self._parse(range(len(self))[place])

    def _parse(self, place: int) -> dict[str, Any]:
        entry: dict[str, Any] = json.loads(self._content[self._ends[place] : self._ends[place + 1]].tobytes())
        return entry
