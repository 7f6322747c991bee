"""Which values of masks are classes, and what they are called: objectInfo150.txt, classes.csv or classes.yaml."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from pixmim_eval.errors import InputError

IGNORED = 255
"""Label of a pixel that belongs to no class: it is neither trained on nor scored."""

UNLABELLED = frozenset(("unlabeled", "unlabelled", "void", "ignore", "ignored"))
"""Names of what is no class. "background" is one."""

_USUALLY_IGNORED = frozenset((0, IGNORED))
_Row = tuple[str, str]


class MaskClasses(NamedTuple):
    """What the values of masks mean.

    Args:
        names: value -> name of its class, by rising value.
        ignored: values that are known to be no class.
    """

    names: dict[int, str]
    ignored: frozenset[int]


def read_classes(folders: Sequence[Path]) -> MaskClasses | None:
    """The classes that the first file of classes in these folders names; None where there is none.

    ADE20K's objectInfo150.txt; classes.csv of columns value,name; classes.yaml with `classes:`, a name for each value,
    and `ignore_classes:`, a list of values, where there are any. What such a file calls unlabeled, void or ignored is
    no class: those pixels are neither trained on nor scored.

    Raises:
        InputError: a file that cannot be understood.
    """
    for folder in folders:
        for name, read in _READERS.items():
            if (folder / name).is_file():
                return _check(*read(folder / name), folder / name)
    return None


def number_classes(values: Iterable[int]) -> MaskClasses:
    """Classes without names: the values that occur, but for 0 and 255."""
    return MaskClasses({value: f"value-{value}" for value in sorted(values) if 0 < value < IGNORED}, _USUALLY_IGNORED)


def _read_ade20k(file: Path) -> tuple[list[_Row], list[str]]:
    lines = [line.split("\t") for line in _read_text(file).splitlines()[1:] if line.strip()]
    return [(line[0].strip(), line[-1].strip()) for line in lines], []


def _read_table(file: Path) -> tuple[list[_Row], list[str]]:
    table = csv.DictReader(_read_text(file).splitlines())
    return [(row.get("value") or "", row.get("name") or "") for row in table], []


def _read_yaml(file: Path) -> tuple[list[_Row], list[str]]:
    """From the nodes, not their values: `no` is a name there, and what stands there twice is seen."""
    try:
        document = yaml.compose(_read_text(file), Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _describe(str(error).replace("\n", " "), file) from error
    parts = {key.value: value for key, value in document.value} if isinstance(document, yaml.MappingNode) else {}
    classes, ignored = parts.get("classes"), parts.get("ignore_classes")
    rows = classes.value if isinstance(classes, yaml.MappingNode) else []
    left_out = ignored.value if isinstance(ignored, yaml.SequenceNode) else []
    return [(_read_scalar(key), _read_scalar(name)) for key, name in rows], [_read_scalar(one) for one in left_out]


def _read_scalar(node: yaml.Node) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


_READERS: dict[str, Callable[[Path], tuple[list[_Row], list[str]]]] = {
    "objectInfo150.txt": _read_ade20k,
    "classes.csv": _read_table,
    "classes.yaml": _read_yaml,
}


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _describe("bytes that are not UTF-8", file) from error


def _check(rows: list[_Row], left_out: list[str], file: Path) -> MaskClasses:
    sound = [(int(value), name) for value, name in rows if value.isascii() and value.isdecimal() and name]
    classes = dict(sorted(sound))
    ignored = {value for value, name in classes.items() if str(value) in left_out or name.lower() in UNLABELLED}
    names = {value: name for value, name in classes.items() if value not in ignored}
    if not names or len(classes) < len(rows) or len({*names.values()}) < len(names):
        raise _describe(f"{len(rows)} rows, {len(classes)} values, {len({*classes.values()})} names", file)
    if len(names) > IGNORED or max(names) >= 1 << 16:
        raise _describe(f"{len(names)} classes, values up to {max(names)}", file)
    return MaskClasses(names, frozenset(ignored) | (_USUALLY_IGNORED - names.keys()))


def _describe(found: str, file: Path) -> InputError:
    return InputError(
        "classes of masks",
        expected="up to 255 rows of a value (below 65536) and a name, each once",
        found=found,
        where=str(file),
        fix="Write classes.csv: `value,name`, then a row for each class, e.g. `1,wall`.",
    )
