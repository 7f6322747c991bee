"""The published numbers that the project keeps."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.published import NAMES, read_published


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_a_source_and_a_confidence(name: str) -> None:
    published = read_published(name)
    assert set(published["confidence"]) <= {"exact", "secondary", "approximate"}
    assert (published["source"].str.len() > 0).all()
    assert published["value"].between(0, 100).all()
    assert not published.duplicated().any()


def test_known_numbers_are_there() -> None:
    robustness = read_published("robustness")
    base = robustness[(robustness["backbone"] == "ViT-B/16") & (robustness["metric"] == "mce_15")]
    assert base["value"].tolist() == [51.7]
    main = read_published("main_results")
    pixmim = main[(main["method"] == "PixMIM-MAE") & (main["epochs"] == 800)]
    assert dict(zip(pixmim["metric"], pixmim["value"], strict=True)) == {"ft_top1": 83.5, "lin_top1": 67.5}


def test_digits_are_kept_and_unknown_epochs_are_empty() -> None:
    main = read_published("main_results")
    assert "68.0" in set(main["printed"])
    assert read_published("robustness")["epochs"].dtype == pd.Int64Dtype()
    assert read_published("robustness")["epochs"].isna().any()
