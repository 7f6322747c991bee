"""Small files of trials, written to disk in model-vs-human's format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

HEADER = "subj,session,trial,rt,object_response,category,condition,imagename"
IMAGES = ("cat1-dog2.png", "dog1-cat1.png", "cat2-cat3.png", "boat1-dog1.png", "dog2-boat3.png", "boat2-cat4.png")
RIGHT = ("cat", "dog", "cat", "boat", "dog", "boat")


def list_lines(observer: str, responses: Sequence[str], images: Sequence[str] = IMAGES) -> list[str]:
    """One trial an image, with the right answer that its name begins with."""
    return [
        f"{observer},1,{number},0.5{number},{response},{image.removesuffix('.png').split('-')[0].rstrip('0123456789')},0,{image}"
        for number, (response, image) in enumerate(zip(responses, images, strict=True), start=1)
    ]


def write_lines(file: Path, lines: Sequence[str], end: str = "\n", header: str = HEADER) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(line + end for line in (header, *lines)).encode())
    return file


def write_observer(
    folder: Path, observer: str, responses: Sequence[str], images: Sequence[str] = IMAGES, name: str = "cue-conflict"
) -> Path:
    return write_lines(folder / name / f"{name}_{observer}_session_1.csv", list_lines(observer, responses, images))
