"""The error of reconstructions by spatial frequency, one line a model."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.groups import Group
from analysis.layout import FAINT, GRID, INK, LEFT, PAGE_WIDTHS, RIGHT, STYLE, TOP, Canvas, Legend, Look, choose_looks
from pixmim_eval.errors import InputError

HEIGHT = 1.9  # inches
HIGHEST = 2.0  # of the vertical axis: a model far above 1 says nothing there, and would flatten the others
BAND = re.compile(r"error_power/([\d.]+)-([\d.]+)")
RADIUS, NOTHING = "radius of PixMIM’s target", "nothing predicted"


def read_spectrum(group: Group) -> pd.DataFrame:
    """The error's power by radius.

    Returns:
        Columns subject (position), low and high (cycles per image), value, value_low, value_high (relative to nothing
        predicted), n; sorted by subject and radius.

    Raises:
        InputError: the rows hold no error_power.
    """
    found = [(row, match) for row in group.rows.itertuples() if (match := BAND.fullmatch(str(row.metric)))]
    if not found:
        raise InputError(
            "metrics of the suite reconstruction",
            expected="error_power/LOW-HIGH",
            found=", ".join(sorted(group.rows["metric"].unique())[:3]),
            where=f"data set {group.dataset}",
            fix="Evaluate the models again: python -m pixmim_eval.run --suite reconstruction.",
        )
    columns = ["subject", "low", "high", "value", "value_low", "value_high", "n"]
    cells: list[Any] = [
        (row.subject, float(match[1]), float(match[2]), row.value, row.low, row.high, row.n) for row, match in found
    ]
    return pd.DataFrame(cells, columns=columns).sort_values(["subject", "low"], ignore_index=True)


def draw_spectrum(group: Group, *, columns: int = 2) -> Figure:
    """Power of the error by radius, relative to that where nothing is predicted.

    Args:
        group: of the suite reconstruction, of 1…8 models.
        columns: width of the figure, one (3.4 in) or two (7 in) columns of a page.
    """
    spectrum = read_spectrum(group)
    radius = group.protocol.get("lowpass_radius")
    with rc_context(STYLE):
        width, looks = PAGE_WIDTHS[columns], choose_looks(group.subjects)
        extra = {NOTHING: Line2D([], [], color=INK, linestyle=":", linewidth=0.9)}
        if radius:
            extra[RADIUS] = Line2D([], [], color=FAINT, linestyle="-", linewidth=0.9)
        legend = Legend(width, group.subjects, extra)
        top = TOP + legend.height + 0.1
        canvas = Canvas(width, top + HEIGHT + 0.4, _describe(group, spectrum))
        axes = canvas.add_axes(LEFT, top, width - LEFT - RIGHT, HEIGHT)
        for subject, look in enumerate(looks):
            _draw_model(axes, spectrum[spectrum["subject"] == subject], look)
        if radius:
            axes.axvline(float(radius), color=FAINT, linewidth=0.9, zorder=1)
        axes.axhline(1, color=INK, linestyle=":", linewidth=0.9, zorder=1)
        axes.set_xlim(0, spectrum["high"].max())
        axes.set_ylim(0, min(max(1.05, 1.05 * spectrum["value_high"].max()), HIGHEST))
        axes.grid(axis="y", color=GRID, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.set_xlabel("radius in the spectrum (cycles per image)")
        axes.set_ylabel("error power")
        canvas.add_legend(legend, looks)
        return canvas.figure


def _draw_model(axes: Axes, bands: pd.DataFrame, look: Look) -> None:
    """One model's line through the middles of its bands, and its intervals."""
    middles = (bands["low"] + bands["high"]) / 2
    band: dict[str, Any] = {"color": look.colour, "alpha": 0.18, "linewidth": 0, "gid": look.mark}
    axes.fill_between(middles, bands["value_low"], bands["value_high"], **band)
    style: dict[str, Any] = {"color": look.colour, "linestyle": look.line, "marker": look.marker, "gid": look.mark}
    axes.plot(middles, bands["value"], markersize=2.6, linewidth=1, **style)


def _describe(group: Group, spectrum: pd.DataFrame) -> str:
    counts = "–".join(str(count) for count in np.unique([spectrum["n"].min(), spectrum["n"].max()]))
    protocol = ", ".join(f"{key}={value}" for key, value in sorted(group.protocol.items()))
    beyond = f" Above {HIGHEST:g} nothing is shown." if spectrum["value_high"].max() > HIGHEST else ""
    return (
        f"Data: {group.dataset}; n = {counts}. Protocol: {protocol}. Power of the error of images with their masked "
        "patches predicted, in rings of the spectrum, relative to that where nothing is predicted (of normalised "
        f"targets: the patch means; of plain pixels: the mean colour). Shaded: 95 % intervals.{beyond}"
    )
