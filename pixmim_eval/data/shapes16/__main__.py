"""Draw the contact sheet: python -m pixmim_eval.data.shapes16 [--out FILE] [--size PIXELS] [--seed N]."""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from pixmim_eval.data.shapes16.dataset import SHEET_ROWS, contact_sheet
from pixmim_eval.data.shapes16.labels import VARIANTS
from pixmim_eval.data.shapes16.shapes import SHAPES


def draw_sheet(path: Path, size: int, seed: int) -> None:
    """Save the contact sheet with the names of shapes above and of variants beside it."""
    sheet = contact_sheet(size, seed)
    height, width = sheet.shape[:2]
    figure = Figure(figsize=(width / 110, height / 110), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(sheet, interpolation="nearest")
    cell = width / len(SHAPES)
    axes.set_xticks([(column + 0.5) * cell for column in range(len(SHAPES))], SHAPES)
    tops = [sum(SHEET_ROWS[before] for before in VARIANTS[:place]) for place in range(len(VARIANTS))]
    centres = [(top + SHEET_ROWS[variant] / 2) * cell for top, variant in zip(tops, VARIANTS, strict=True)]
    axes.set_yticks(centres, VARIANTS)
    axes.tick_params(length=0, labelsize=7.5, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    for top in tops[1:]:
        axes.axhline(top * cell - 1.5, color="black", linewidth=1.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pixmim_eval.data.shapes16", description="Draw a contact sheet.")
    parser.add_argument("--out", type=Path, default=Path("reports/figures/shapes16.png"), metavar="FILE")
    parser.add_argument("--size", type=int, default=64, metavar="PIXELS", help="of each image (default 64)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args()
    draw_sheet(options.out, options.size, options.seed)
    print(options.out)


if __name__ == "__main__":
    main()
