"""One XML file of ILSVRC's annotations (the layout of PASCAL VOC): nothing in it is expanded, opened or believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, NoReturn
from xml.parsers import expat

LARGEST = 1 << 20  # bytes of a file; ILSVRC's have under 100 kB
_DEEPEST = 16  # levels of elements; ILSVRC's have 4
_SIDES = {"annotation/size/height": 0, "annotation/size/width": 1}
_EDGES = {f"annotation/object/bndbox/{tag}": place for place, tag in enumerate(("xmin", "ymin", "xmax", "ymax"))}


class Record(NamedTuple):
    """What one XML file holds.

    height, width, found_height, found_width: as stated, and of the image itself; 0 for none.
    corners: x_min, y_min, x_max, y_max of each box in one list.
    kind, detail: of the problem with the file, "" for none.
    """

    key: str
    height: int = 0
    width: int = 0
    corners: Sequence[float] = ()
    found_height: int = 0
    found_width: int = 0
    kind: str = ""
    detail: str = ""


class _RefusedXMLError(ValueError):
    """XML that is not read on."""


class _Reader:
    """Collects sizes and boxes while expat goes through a file."""

    def __init__(self) -> None:
        self.sides = [0, 0]
        self.corners: list[float] = []
        self._path: list[str] = []
        self._text = ""

    def start(self, tag: str, _: dict[str, str]) -> None:
        if not self._path and tag != "annotation":
            raise _RefusedXMLError(f"<{tag}> where <annotation> was expected")
        if len(self._path) == _DEEPEST:
            raise _RefusedXMLError(f"elements nested more than {_DEEPEST} deep")
        self._path.append(tag)
        self._text = ""
        if self._path == ["annotation", "object"]:
            self.corners += [math.nan] * 4  # an object without a box, or without one of its sides, shows

    def text(self, data: str) -> None:
        self._text += data

    def end(self, _: str) -> None:
        path = "/".join(self._path)
        if path in _EDGES:
            self.corners[_EDGES[path] - 4] = _parse_number(self._text)
        elif path in _SIDES:
            side = _parse_number(self._text)
            self.sides[_SIDES[path]] = int(side) if side.is_integer() and abs(side) < 2**31 else 0
        self._path.pop()

    def refuse(self, *_: object) -> NoReturn:
        raise _RefusedXMLError("a document type or entities, which no annotation needs")


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def parse_annotation(data: bytes, key: str) -> Record:
    """One XML file. Document types and entities are refused before anything is expanded or opened.

    The name of the image comes from the name of the XML file: <filename> is never used (in ILSVRC it may be "%s").
    """
    reader, parser = _Reader(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = reader.refuse
    parser.ExternalEntityRefHandler = reader.refuse
    try:
        if len(data) > LARGEST:
            raise _RefusedXMLError(f"{len(data):,} bytes, more than any annotation has")
        parser.Parse(data, True)
    except (expat.ExpatError, _RefusedXMLError, ValueError, LookupError) as error:  # the last two: unknown encodings
        return Record(key, kind="broken", detail=str(error))
    height, width = reader.sides
    return Record(key, height, width, reader.corners)
