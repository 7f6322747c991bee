"""The contact sheet shows what it says, and is the same file every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixmim_eval.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from pixmim_eval.corruptions.__main__ import draw_sheet, main, read_image

SIDE = 112  # cells of this size are shown pixel by pixel
FIFTEEN = [name for name, corruption in CORRUPTIONS.items() if corruption.in_mce15]


def find(sheet: np.ndarray, cell: np.ndarray) -> list[tuple[int, int]]:
    """Every (top, left) at which a packed sheet holds the cell."""
    cell = pack(cell)
    corners = np.argwhere(sheet[: 1 - SIDE, : 1 - SIDE] == cell[0, 0]).tolist()
    return [(top, left) for top, left in corners if np.array_equal(sheet[top : top + SIDE, left : left + SIDE], cell)]


def pack(image: np.ndarray) -> np.ndarray:
    """RGB as one integer a pixel."""
    red, green, blue = np.moveaxis(image.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def test_every_cell_stands_in_the_row_of_its_corruption_and_the_column_of_its_severity() -> None:
    image = read_image(None, SIDE)
    sheet = pack(np.asarray(draw_sheet(image, seed=3, every=True)))
    batch = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    rows = {}
    for name in CORRUPTIONS:
        cells = [corrupt(batch, name, severity, seed=3, index=torch.tensor([0]))[0] for severity in SEVERITIES]
        places = [find(sheet, cell.permute(1, 2, 0).numpy()) for cell in cells]
        assert all(places), f"{name}: a severity is not on the sheet"
        tops, lefts = {found[0][0] for found in places}, [found[0][1] for found in places]
        assert len(tops) == 1
        assert len(set(np.diff(lefts))) == 1 and lefts[1] - lefts[0] >= SIDE
        rows[name] = (tops.pop(), lefts[0])
    assert len(set(rows.values())) == len(CORRUPTIONS)
    ((clean_top, clean_left),) = find(sheet, image)
    assert clean_top < min(top for top, _ in rows.values()) and clean_left == min(left for _, left in rows.values())


def test_corruptions_outside_the_fifteen_are_drawn_only_on_demand() -> None:
    image = read_image(None, SIDE)
    sheet = pack(np.asarray(draw_sheet(image)))
    batch = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    for name in CORRUPTIONS:
        cell = corrupt(batch, name, 5, seed=0, index=torch.tensor([0]))[0].permute(1, 2, 0).numpy()
        assert bool(find(sheet, cell)) == (name in FIFTEEN)


def test_the_same_command_writes_the_same_bytes_and_fits_a_screen(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    levels = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    Image.fromarray(levels).save(photo)
    for name in ("first.png", "second.png"):
        assert main([str(photo), "--size", "32", "--out", str(tmp_path / "new" / name)]) == 0
    first = (tmp_path / "new" / "first.png").read_bytes()
    assert first == (tmp_path / "new" / "second.png").read_bytes()
    width, height = Image.open(tmp_path / "new" / "first.png").size
    assert width > height


@pytest.mark.parametrize(("words", "said"), [(["none.png"], "none.png"), (["--size", "300"], "300")])
def test_what_cannot_be_drawn_is_named_and_writes_nothing(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
