"""What is committed is small, holds no code in disguise, and names no one's machine."""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAXIMUM_BYTES = 2 * 2**20
PICKLE_SUFFIXES = {".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"}
MACHINE_PATH = re.compile(r"(?<![\w.-])(?:/(?:home|mnt|root|Users|work|workspace)/\w|[A-Za-z]:\\\w)")
REGISTRY = re.compile(r"(?:index|extra-index|find)[-_](?:url|links)|trusted[-]host|pypi\.(?:org|python)|/simple[/]")
PRIVATE_ADDRESS = re.compile(r"https?://(?:\d{1,3}\.){3}\d{1,3}|https?://[^/\s@]+@")


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no list of committed files")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def read_text(path: Path) -> str:
    """The text of a file; nothing for a binary one."""
    content = path.read_bytes()
    return "" if b"\0" in content else content.decode("utf-8", errors="replace")


def holds_pickle(path: Path) -> bool:
    """By name, by the first bytes of the pickle protocols 2 to 5, or as a torch archive."""
    if path.suffix in PICKLE_SUFFIXES or re.match(rb"\x80[\x02-\x05]", path.read_bytes()[:2]):
        return True
    return zipfile.is_zipfile(path) and any(name.endswith(".pkl") for name in zipfile.ZipFile(path).namelist())


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY, PRIVATE_ADDRESS])
def test_no_tracked_file_names_a_machine_or_a_registry(tracked: list[Path], pattern: re.Pattern[str]) -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), match.group())
        for path in tracked
        for match in pattern.finditer(read_text(path))
    }
    assert not found


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (MACHINE_PATH, "data in " + "/home" + "/ada/images"),
        (MACHINE_PATH, "C:" + "\\Users"),
        (REGISTRY, "pip install --extra-index" + "-url https://mirror"),
        (PRIVATE_ADDRESS, "http:" + "//10.0.0.7:8080/x"),
        (PRIVATE_ADDRESS, "https:" + "//user:word@host"),
    ],
)
def test_the_patterns_recognise_what_they_look_for(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.search(text)


def test_no_tracked_file_is_a_pickle(tracked: list[Path]) -> None:
    assert not [path for path in tracked if holds_pickle(path)]


def test_no_tracked_file_is_larger_than_2_mib(tracked: list[Path]) -> None:
    assert not [path for path in tracked if path.stat().st_size > MAXIMUM_BYTES]
