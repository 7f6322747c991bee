"""Whatever is wrong with boxes is counted and named; nothing in a file is expanded, opened or believed."""

from __future__ import annotations

import gzip
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pixmim_eval.data.boxes import KINDS, BoxSet, Problem, open_boxes, summarise_problems
from pixmim_eval.data.boxes.annotation import parse_annotation
from pixmim_eval.errors import InputError
from tests.data.box_files import (
    COLUMNS,
    make_coco,
    make_xml,
    write_box_parquet,
    write_csv,
    write_json,
    write_wsol,
    write_xml_tar,
)
from tests.data.files import write, write_tar

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

GOOD = ("good", 100, 80, 0, 0, 9, 9)


def kinds(found: BoxSet) -> Counter[str]:
    return Counter(problem.kind for problem in found.problems)


@pytest.mark.parametrize(
    ("box", "kind", "kept"),
    [
        ((0, 0, 99, 79), None, (0, 0, 80, 100)),
        ((5, 6, 5, 6), None, (6, 5, 1, 1)),
        ((0, 0, 100, 80), "clipped", (0, 0, 80, 100)),
        ((-4, -3, 9, 9), "clipped", (0, 0, 10, 10)),
        ((90, 70, 103, 82), "clipped", (70, 90, 10, 10)),
        ((100, 0, 101, 9), "outside", None),
        ((-3, 0, -1, 9), "outside", None),
        ((0, 0, 105, 9), "resolution", None),
        ((300, 300, 400, 400), "resolution", None),
        ((0, 0, 2e9, 9), "resolution", None),
        ((9, 0, 8, 9), "empty", None),
        ((20, 20, 10, 30), "empty", None),
        ((200, 200, 110, 130), "empty", None),
        (("nan", 0, 9, 9), "not finite", None),
        ((0, "inf", 9, 9), "not finite", None),
        ((0, 0, "nine", 9), "not finite", None),
        ((0, 0, "", 9), "not finite", None),
        ((0, 0, "1e999", 9), "not finite", None),
        (("", "", "", ""), "no box", None),
    ],
)
@pytest.mark.parametrize("form", ["csv", "xml", "wsol"])
def test_a_bad_box_is_clipped_or_dropped_and_named(
    form: str, box: tuple[Any, ...], kind: str | None, kept: tuple[int, ...] | None, tmp_path: Path
) -> None:
    if form == "csv":
        found = open_boxes(str(write_csv(tmp_path / "set.csv", [GOOD, ("bad", 100, 80, *box)])))
    elif form == "xml":
        write(tmp_path / "good.xml", make_xml(*GOOD[1:3], [GOOD[3:]]).encode())
        write(tmp_path / "bad.xml", make_xml(100, 80, [box] if kind != "no box" else []).encode())
        found = open_boxes(str(tmp_path))
    else:
        write(tmp_path / "image_sizes.txt", b"good,100,80\nbad,100,80\n")
        line = "" if kind == "no box" else ",".join(map(str, ("bad", *box)))
        write(tmp_path / "localization.txt", f"good,0,0,9,9\n{line}\n".encode())
        found = open_boxes(str(tmp_path))
    row = found.keys.tolist().index("bad")
    assert [tuple(numbers) for numbers in found.boxes[found.image == row].tolist()] == ([kept] if kept else [])
    expected = {kind} if kind in (None, "clipped", "no box") else {kind, "no box"}
    assert {problem.kind for problem in found.problems} == expected - {None}
    assert all(problem.key == "bad" for problem in found.problems)
    assert (found.image == found.keys.tolist().index("good")).sum() == 1


def test_a_box_far_outside_takes_the_other_boxes_of_its_image_along(tmp_path: Path) -> None:
    rows = [("big", 100, 80, 0, 0, 9, 9), ("big", 100, 80, 400, 300, 450, 350), ("big", 100, 80, 9, 9, 500, 20), GOOD]
    found = open_boxes(str(write_csv(tmp_path / "set.csv", rows)))
    assert found.image.tolist() == [1]
    assert kinds(found) == {"resolution": 1, "no box": 1}
    assert found.problems[0].detail == "edges 400 300 451 351 in 100 x 80"


def test_every_box_is_kept_or_on_the_list(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    corners = generator.integers(-2, 60, (2000, 4))
    names = generator.integers(0, 1500, 2000)
    rows = [(f"i{name}", 58, 57, *box) for name, box in zip(names.tolist(), corners.tolist(), strict=True)]
    found = open_boxes(str(write_csv(tmp_path / "set.csv", rows)))
    counts = kinds(found)
    lost = {problem.key for problem in found.problems if problem.kind == "resolution"}
    with_them = sum(
        name in lost and x0 <= x1 and y0 <= y1 for name, _, _, x0, y0, x1, y1 in rows
    )  # an image's other boxes go with the one that is listed
    assert len(found.boxes) + counts["empty"] + counts["outside"] + with_them == len(rows)
    assert counts["no box"] == len(found) - len(np.unique(found.image)) and len(found) == len(np.unique(names))
    top, left, height, width = found.boxes.T
    assert (found.boxes[:, :2] >= 0).all() and (height > 0).all() and (width > 0).all()
    assert (top + height <= 57).all() and (left + width <= 58).all()


@pytest.mark.parametrize("size", [(0, 80), (-3, 80), ("", ""), ("wide", 80), (100.5, 80), ("nan", 80), ("1e30", 80)])
def test_an_image_without_a_size_is_dropped_and_named(size: tuple[Any, Any], tmp_path: Path) -> None:
    found = open_boxes(str(write_csv(tmp_path / "set.csv", [("bad", *size, 0, 0, 9, 9), GOOD])))
    assert found.keys.tolist() == ["good"] and found.image.tolist() == [0]
    assert [(problem.kind, problem.key) for problem in found.problems] == [("no size", "bad")]
    write(tmp_path / "xml/bad.xml", make_xml(*size, [(0, 0, 9, 9)]).encode())
    write(tmp_path / "xml/good.xml", make_xml(100, 80, [(0, 0, 9, 9)]).encode())
    assert kinds(open_boxes(str(tmp_path / "xml"))) == {"no size": 1}


def test_an_image_of_two_sizes_has_none(tmp_path: Path) -> None:
    rows = [GOOD, ("two", 100, 80, 0, 0, 1, 1), ("two", 100, 81, 0, 0, 2, 2)]
    assert kinds(open_boxes(str(write_csv(tmp_path / "set.csv", rows)))) == {"no size": 1}
    write(tmp_path / "w/image_sizes.txt", b"a,10,10\nb,10,10\nb,10,11\n")
    write(tmp_path / "w/localization.txt", b"a,0,0,1,1\nb,0,0,1,1\n")
    assert kinds(open_boxes(str(tmp_path / "w")))["no size"] >= 1


def test_boxes_that_stand_there_twice_are_kept_and_named(tmp_path: Path) -> None:
    other = ("other", 100, 80, 0, 0, 9, 9)
    found = open_boxes(str(write_csv(tmp_path / "set.csv", [GOOD, other, GOOD, GOOD, ("good", 100, 80, 0, 0, 9, 8)])))
    assert len(found.boxes) == 5 and kinds(found) == {"duplicate": 2}
    assert {problem.key for problem in found.problems} == {"good"}
    bare = ("bare", 100, 80, "", "", "", "")
    found = open_boxes(str(write_csv(tmp_path / "as many.csv", [GOOD, GOOD, bare, other])))
    assert len(found) == len(found.boxes) == 3 and kinds(found) == {"duplicate": 1, "no box": 1}


# Names


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/etc/passwd", "a\\..\\..\\up", "C:\\up", "\\\\server\\up"])
def test_names_that_lead_out_are_dropped_and_named(name: str, tmp_path: Path) -> None:
    rows = [GOOD, (name, 100, 80, 0, 0, 9, 9)]
    write(tmp_path / "w/image_sizes.txt", f"good,100,80\n{name},100,80\n".encode())
    write(tmp_path / "w/localization.txt", b"good,0,0,9,9\n")
    xml = make_xml(100, 80, [(0, 0, 9, 9)]).encode()
    write_tar(tmp_path / "set.tar", {"good.xml": xml, f"{name}.xml": xml})
    for path in (
        write_csv(tmp_path / "set.csv", rows),
        write_json(tmp_path / "set.json", make_coco(rows)),
        tmp_path / "w",
        tmp_path / "set.tar",
    ):
        found = open_boxes(str(path))
        assert found.keys.tolist() == ["good"]
        assert kinds(found)["path"] == 1 and len(found.boxes) == 1


def test_the_file_name_inside_xml_is_never_used(tmp_path: Path) -> None:
    write(tmp_path / "set/n1/n1_2.xml", make_xml(100, 80, [(0, 0, 9, 9)], name="../../../etc/passwd").encode())
    found = open_boxes(str(tmp_path / "set"))
    assert found.keys.tolist() == ["n1/n1_2"] and not found.problems


def test_links_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    import tarfile

    write_xml_tar(tmp_path / "set.tar")
    with tarfile.open(tmp_path / "set.tar", "a:") as archive:
        link = tarfile.TarInfo("evil.xml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert kinds(open_boxes(str(tmp_path / "set.tar")))["broken"] == 1


# XML that is an attack, or broken

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
BODY = make_xml(100, 80, [(0, 0, 9, 9)])
BAD_XML = {
    "billion laughs": f'<!DOCTYPE annotation [<!ENTITY l0 "lol">{LAUGHS}]>' + BODY.replace("%s", "&l11;"),
    "quadratic": f'<!DOCTYPE annotation [<!ENTITY a "{"a" * 50_000}">]>' + BODY.replace("%s", "&a;" * 10_000),
    "external": '<!DOCTYPE annotation [<!ENTITY x SYSTEM "SECRET">]>' + BODY.replace("<xmin>0<", "<xmin>&x;<"),
    "parameter": '<!DOCTYPE annotation [<!ENTITY % x SYSTEM "SECRET"> %x;]>' + BODY,
    "remote type": '<!DOCTYPE annotation SYSTEM "http://localhost:9/x.dtd">' + BODY,
    "undefined entity": BODY.replace("%s", "&nothing;"),
    "deep": BODY.replace("%s", "<a>" * 60_000 + "</a>" * 60_000),
    "large": BODY.replace("%s", "a" * (1 << 20)),
    "cut off": BODY[: len(BODY) // 2],
    "empty": "",
    "text": "not XML",
    "another": "<html><body/></html>",
    "twice": BODY + BODY,
    "strange encoding": '<?xml version="1.0" encoding="no-such"?>' + BODY,
    "wide encoding": '<?xml version="1.0" encoding="utf-32"?>' + BODY,
}


@pytest.mark.parametrize("name", BAD_XML)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_bad_xml_is_refused_and_named(name: str, encoding: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("77")
    write(tmp_path / "set/bad.xml", BAD_XML[name].replace("SECRET", str(secret)).encode(encoding))
    write(tmp_path / "set/good.xml", BODY.encode())
    found = open_boxes(str(tmp_path / "set"))
    assert found.keys.tolist() == ["good"] and len(found.boxes) == 1
    assert [(problem.kind, problem.key) for problem in found.problems] == [("broken", "bad")]
    if name in ("billion laughs", "quadratic", "external", "parameter", "remote type"):
        assert "document type" in found.problems[0].detail


def test_xml_in_another_encoding_is_read_if_it_says_so() -> None:
    text = '<?xml version="1.0" encoding="{}"?>' + BODY.replace("%s", "Zürich")
    for encoding in ("utf-8", "latin-1", "utf-16"):
        record = parse_annotation(text.format(encoding).encode(encoding), "x")
        assert (record.kind, record.corners) == ("", [0, 0, 9, 9])


def test_an_object_without_a_box_shows() -> None:
    record = parse_annotation(BODY.replace("<object>", "<object><name>x</name></object><object>").encode(), "x")
    assert len(record.corners) == 8 and all(math.isnan(corner) for corner in record.corners[:4])
    assert record.corners[4:] == [0, 0, 9, 9]


# Files that are damaged as a whole


def test_truncated_files_are_errors_at_every_cut(tmp_path: Path) -> None:
    rows = [(f"i{number:05d}", 100, 80, number % 50, 0, 60, number % 70) for number in range(300)]
    xml = {f"{name}.xml": make_xml(100, 80, [(0, 0, 9, 9)]).encode() for name, *_ in rows}
    write_tar(tmp_path / "set.tgz", xml, "w:gz")
    write_csv(tmp_path / "set.csv.gz", rows)
    write_box_parquet(tmp_path / "set.parquet")
    write_json(tmp_path / "set.json", make_coco(rows))
    for name in ("set.csv.gz", "set.parquet", "set.json", "set.tgz"):
        data = (tmp_path / name).read_bytes()
        for share in (0, 0.01, 0.5, 0.999):
            write(tmp_path / f"cut-{name}", data[: int(len(data) * share)])
            with pytest.raises(InputError):
                open_boxes(str(tmp_path / f"cut-{name}"))
        damaged = bytearray(data)
        damaged[len(data) // 2] ^= 255
        write(tmp_path / f"cut-{name}", bytes(damaged))
        if name in ("set.csv.gz", "set.tgz"):  # which have checksums
            with pytest.raises(InputError):
                open_boxes(str(tmp_path / f"cut-{name}"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"", "complete CSV"),
        ("a.csv", b"image,width\n\xff\xfe,3\n", "complete CSV"),
        ("a.csv", ",".join(COLUMNS[:-1]).encode() + b"\na,1,1,0,0,0\n", "no y_max"),
        ("a.csv", ",".join(COLUMNS).encode() + b"\n", "at least one box"),
        ("a.csv", ",".join(COLUMNS).encode() + b"\na,100,80,0.1,0.1,0.9,0.9\n", "pixels"),
        ("a.csv.gz", gzip.compress(b"image\n\xff", mtime=0), "complete CSV"),
        ("a.parquet", b"PAR1", "complete Parquet"),
        ("a.json", b"[1, 2", "lists of images"),
        ("a.json", b"[]", "lists of images"),
        ("a.json", b'{"images": {}, "annotations": []}', "lists of images"),
        ("a.json", b"[" * 100_000, "lists of images"),
        ("a.json", b'{"images": [], "annotations": []}', "at least one box"),
        ("a.tar", b"", "complete tar"),
        ("a.txt", b"what", "CSV, Parquet"),
    ],
)
def test_what_is_no_box_file_is_an_error_that_says_what_was_expected(
    name: str, data: bytes, message: str, tmp_path: Path
) -> None:
    write(tmp_path / name, data)
    with pytest.raises(InputError, match=message):
        open_boxes(str(tmp_path / name))


def test_folders_without_boxes_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no nowhere"):
        open_boxes(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="a folder of nothing"):
        open_boxes(str(tmp_path))
    write_wsol(tmp_path / "w")
    (tmp_path / "w/image_sizes.txt").unlink()
    with pytest.raises(InputError, match="image_sizes"):
        open_boxes(str(tmp_path / "w"))
    write(tmp_path / "o/localization.txt", b"a.jpg,a_1.png,a_ignore.png\n")
    write(tmp_path / "o/image_sizes.txt", b"a.jpg,10,10\n")
    with pytest.raises(InputError, match="mask files"):
        open_boxes(str(tmp_path / "o"))
    with pytest.raises(InputError, match="builtin"):
        open_boxes("builtin:shapes17")


def test_when_no_box_is_left_the_error_says_why(tmp_path: Path) -> None:
    rows = [("a", 100, 80, 9, 9, 2, 2), ("b", 100, 80, 900, 9, 950, 20)]
    with pytest.raises(InputError, match="1 boxes that are empty or inverted") as caught:
        open_boxes(str(write_csv(tmp_path / "set.csv", rows)))
    assert KINDS["resolution"] in str(caught.value)


# COCO


def square(left: float, top: float, side: float) -> list[list[float]]:
    return [[left, top, left + side, top, left + side, top + side, left, top + side]]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"image_id": 99}, "no entry"),
        ({"image_id": None}, "no entry"),
        ({"iscrowd": 1}, "crowd"),
        ({"iscrowd": 1, "segmentation": {"size": [80, 100], "counts": [8000]}}, "crowd"),
        ({"bbox": [0, 0, 0, 9]}, "empty"),
        ({"bbox": [0, 0, 9, -2]}, "empty"),
        ({"bbox": [0, 0, 9]}, "not finite"),
        ({"bbox": None}, "not finite"),
        ({"bbox": [0, 0, 10**400, 9]}, "not finite"),
        ({"bbox": [0, 0, math.nan, 9]}, "not finite"),
        ({"bbox": [90, 70, 12, 9]}, "clipped"),
        ({"segmentation": []}, "mask"),
        ({"segmentation": None}, "mask"),
        ({"segmentation": [[0, 0, 5, 5]]}, "mask"),
        ({"segmentation": [[0, 0, 5, 5, 9, 9, 1]]}, "mask"),
        ({"segmentation": [[0, 0, 5, "5", 9, 9]]}, "mask"),
        ({"segmentation": [[0, 0, 5, math.inf, 9, 9]]}, "mask"),
        ({"segmentation": square(0, 0, 1e9)}, "mask"),
        ({"segmentation": square(0, 0, 10**400)}, "mask"),
        ({"segmentation": {"size": [100, 80], "counts": [8000]}}, "mask"),
        ({"segmentation": {"size": [80, 100], "counts": [8001]}}, "mask"),
        ({"segmentation": {"size": [80, 100], "counts": [8010, -10]}}, "mask"),
        ({"segmentation": {"size": [80, 100], "counts": "zzzzzzzzzzzz"}}, "mask"),
        ({"segmentation": {"size": [80, 100], "counts": "\u00e9"}}, "mask"),
        ({"segmentation": {"size": [80, 100]}}, "mask"),
    ],
)
def test_a_bad_annotation_is_dropped_and_named(change: dict[str, Any], kind: str, tmp_path: Path) -> None:
    content = make_coco([("bad", 100, 80, 0, 0, 9, 9), GOOD])
    for entry in content["annotations"]:
        entry["segmentation"] = square(0, 0, 10)
    content["annotations"][0] |= change
    found = open_boxes(str(write_json(tmp_path / "set.json", content)))
    assert kinds(found)[kind] == 1
    assert found.keys.tolist() == ["bad", "good"] and (found.image == 1).sum() == 1
    assert (found.image == 0).sum() == (kind == "clipped") == len(found.masks.of(0) if found.masks else [])


def test_what_makes_coco_ambiguous_is_an_error(tmp_path: Path) -> None:
    for change in ("id", "file_name"):
        content = make_coco([("other", 100, 80, 0, 0, 9, 9), GOOD])
        content["images"][0][change] = content["images"][1][change]
        with pytest.raises(InputError, match="more than once"):
            open_boxes(str(write_json(tmp_path / "set.json", content)))
    content = make_coco([GOOD])
    content["categories"].append({"id": 1, "name": "again"})
    with pytest.raises(InputError, match="twice"):
        open_boxes(str(write_json(tmp_path / "set.json", content)))


def test_names_that_no_file_can_have_are_dropped_and_named(tmp_path: Path) -> None:
    found = open_boxes(str(write_json(tmp_path / "set.json", make_coco([("a\ud800", 100, 80, 0, 0, 9, 9), GOOD]))))
    assert found.keys.tolist() == ["good"] and kinds(found) == {"path": 1, "no entry": 1}


def test_columns_stay_in_place_where_rows_have_more_of_them(tmp_path: Path) -> None:
    write(tmp_path / "set.csv", f"{','.join(COLUMNS)}\n{','.join(map(str, GOOD))},7,8\n".encode())
    with pytest.warns(pd.errors.ParserWarning):
        found = open_boxes(str(tmp_path / "set.csv"))
    assert found.keys.tolist() == ["good"] and found.boxes.tolist() == [[0, 0, 10, 10]]


def test_entries_that_are_no_entries_are_named(tmp_path: Path) -> None:
    content: dict[str, list[Any]] = make_coco([GOOD])
    content["images"] += [7, {"id": "x", "file_name": "y"}, {"id": 5}]
    content["annotations"] += ["no", None]
    assert kinds(open_boxes(str(write_json(tmp_path / "set.json", content)))) == {"broken": 5}


# The line that is printed


def test_the_summary_counts_each_kind_and_gives_an_example() -> None:
    problems = [Problem("clipped", f"i{n}", f"edge {n}") for n in range(1200)]
    problems[3:3] = [Problem("no box", "bare", "")]
    text = summarise_problems(problems)
    assert text == f"1,200 {KINDS['clipped']}, e.g. i0 (edge 0); 1 {KINDS['no box']}, e.g. bare"
    assert summarise_problems([]) == ""


def test_every_kind_that_is_noted_is_described() -> None:
    from pixmim_eval import data

    folder = Path(str(data.__file__)).parent
    source = "".join(file.read_text() for file in folder.rglob("*.py"))
    noted = set(re.findall(r'(?:Problem|note)\(\s*"([^"]+)"', source)) | set(re.findall(r'key, kind="([^"]+)"', source))
    assert len(noted) > 12 and noted <= set(KINDS), sorted(noted - set(KINDS))
    assert all(f'"{kind}"' in source.replace(f'"{kind}":', "", 1) for kind in KINDS), json.dumps(sorted(KINDS))
