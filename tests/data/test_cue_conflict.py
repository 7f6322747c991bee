from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from pixmim_eval.data import open_manifest
from pixmim_eval.data.cue_conflict import exchange_spectra, main, mix_sets, write_cue_conflict
from pixmim_eval.data.stimuli import read_stimuli
from pixmim_eval.errors import InputError
from tests.data.files import encode, pixels, write


def write_list(folder: Path, rows: list[str], header: str = "image,shape,texture") -> Path:
    for number in range(3):
        write(folder / "mixed" / f"{number}.png", encode(pixels(number)))
    table = folder / "list.csv"
    table.write_text("\n".join([header, *rows]) + "\n")
    return table


ROWS = ["mixed/0.png,cat,dog", "mixed/1.png,truck,cat", "mixed/2.png,cat,cat"]


def test_what_is_written_is_read_back_with_the_same_shapes_and_textures(tmp_path: Path) -> None:
    assert write_cue_conflict(write_list(tmp_path, ROWS), tmp_path / "out") == 3
    found = read_stimuli(open_manifest(tmp_path / "out"), "cue-conflict")
    named = {
        image: (found.categories[shape], found.categories[texture])
        for image, shape, texture in zip(found.images, found.shapes, found.textures, strict=True)
    }
    assert named == {
        "cat1-dog1.png": ("cat", "dog"), "truck2-cat2.png": ("truck", "cat"), "cat3-cat3.png": ("cat", "cat")
    }  # fmt: skip
    assert (tmp_path / "out/truck/truck2-cat2.png").read_bytes() == (tmp_path / "mixed/1.png").read_bytes()


def test_categories_of_your_own_may_hold_hyphens(tmp_path: Path) -> None:
    rows = ["mixed/0.png,half-disc-like,oak", "mixed/1.png,oak,half-disc-like"]
    write_cue_conflict(write_list(tmp_path, rows), tmp_path / "out")
    found = read_stimuli(open_manifest(tmp_path / "out"), "cue-conflict")
    assert found.categories == ("half-disc-like", "oak")
    assert (found.shapes.tolist(), found.textures.tolist()) == ([0, 1], [1, 0])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("mixed/9.png,cat,dog", "no such file, 1: .*9.png"),
        ("mixed/0.png,cat,n01440764", "found 1: n01440764"),
        ("mixed/0.png,../cat,dog", "found 1: ../cat"),
        ("mixed/0.png,cat,sofa", "found 1: sofa"),
        ("mixed/0.png,cat,", "found 1: "),
    ],
)
def test_a_list_that_says_too_little_writes_nothing(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_cue_conflict(write_list(tmp_path, [*ROWS, row]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_columns_must_be_named_and_the_folder_new(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="columns image, shape, texture, found image, cue"):
        write_cue_conflict(write_list(tmp_path, ["a,b"], header="image,cue"), tmp_path / "out")
    with pytest.raises(InputError, match="a new folder"):
        write_cue_conflict(write_list(tmp_path, ROWS), tmp_path / "mixed")


def test_a_mixture_has_the_phases_of_one_image_and_the_amplitudes_of_the_other() -> None:
    random = np.random.default_rng(0)
    for size in ((12, 10), (9, 7)):
        shape, texture = random.random((*size, 3)), random.random((*size, 3)) + 0.5
        mixed = exchange_spectra(shape, texture)
        for channel in range(3):
            found, phases, amplitudes = (np.fft.fft2(image[..., channel]) for image in (mixed, shape, texture))
            np.testing.assert_allclose(np.abs(found), np.abs(amplitudes), atol=1e-10)
            np.testing.assert_allclose(found / np.abs(found), phases / np.abs(phases), atol=1e-9)
        np.testing.assert_allclose(exchange_spectra(shape, shape), shape, atol=1e-12)


def test_any_two_sets_become_a_set_of_every_pair_of_categories(tmp_path: Path) -> None:
    """Shapes by WordNet ids, one of no category; textures by names."""
    for number, folder in enumerate(["n02123045", "n02123045", "n03417042", "n03417042", "n01440764", "n01440764"]):
        write(tmp_path / "shapes" / folder / f"{number}.png", encode(pixels(number)))
    for number, folder in enumerate(["dog", "dog", "cat", "cat"]):
        write(tmp_path / "textures" / folder / f"{number}.png", encode(pixels(9 + number)))
    words = ["--shapes", str(tmp_path / "shapes"), "--textures", str(tmp_path / "textures"), "--copies", "2"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    manifest = open_manifest(tmp_path / "out")
    found = read_stimuli(manifest, "cue-conflict")
    pairs = Counter(
        (found.categories[s], found.categories[t]) for s, t in zip(found.shapes, found.textures, strict=True)
    )
    assert pairs == dict.fromkeys(product(("cat", "truck"), ("cat", "dog")), 2)
    assert main([*words, "--out", str(tmp_path / "again")]) == 0
    assert [path.read_bytes() for path in sorted((tmp_path / "again").rglob("*.png"))] == [
        path.read_bytes() for path in sorted((tmp_path / "out").rglob("*.png"))
    ]
    assert main([*words[:-1], "3", "--out", str(tmp_path / "more")]) == 2
    assert not (tmp_path / "more").exists()


def test_sets_of_too_few_images_are_told_how_many_there_are(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write(tmp_path / "few" / name / "1.png", encode(pixels(1)))
    manifest = open_manifest(tmp_path / "few")
    with pytest.raises(InputError, match=r"at least 2 images of each category.*found 4: 1 of cat"):
        mix_sets(manifest, manifest, tmp_path / "out", copies=2)
    with pytest.raises(SystemExit):
        main(["--shapes", str(tmp_path / "few"), "--out", str(tmp_path / "out")])


def test_the_command_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_list(tmp_path, ROWS)
    assert main([str(table), "--out", str(tmp_path / "out")]) == 0
    assert (
        f"3 images: python -m pixmim_eval.run --suite shape_bias --data {tmp_path / 'out'}" in capsys.readouterr().out
    )
    assert main([str(table), "--out", str(tmp_path / "out")]) == 2
    assert main([str(tmp_path / "none.csv"), "--out", str(tmp_path / "new")]) == 2
