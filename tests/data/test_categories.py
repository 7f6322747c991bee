from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pixmim_eval.data.categories import CATEGORIES, CATEGORY_CLASSES, find_categories, map_categories
from pixmim_eval.data.imagenet import imagenet_space
from pixmim_eval.data.shapes16 import SHAPES
from pixmim_eval.errors import InputError
from pixmim_eval.types import LabelSpace

SHAPES16 = LabelSpace("shapes16", tuple(SHAPES))


def test_a_class_belongs_to_one_category_at_most_and_all_are_classes_of_imagenet() -> None:
    ids = [wnid for found in CATEGORY_CLASSES.values() for wnid in found]
    assert len(ids) == 207 == len(set(ids))
    assert set(ids) <= set(imagenet_space().classes)
    assert len(CATEGORIES) == 16 and list(CATEGORIES) == sorted(CATEGORIES)


def test_imagenet_indices_are_the_published_ones(shared_data: Path) -> None:
    with (shared_data / "imagenet_to_16_categories.csv").open(newline="") as file:
        published = {int(row["imagenet_index"]): row["category"] for row in csv.DictReader(file)}
    mapped = map_categories(imagenet_space(), CATEGORIES)
    ours = {int(k): name for name, found in zip(CATEGORIES, mapped.members, strict=True) for k in found}
    assert ours == published
    assert mapped.description == {"categories": "16", "classes": "207-of-1000"}


def test_the_number_of_classes_of_each_category_is_that_of_the_paper() -> None:
    counts = Counter({name: len(found) for name, found in CATEGORY_CLASSES.items()})
    assert counts.most_common(3) == [("dog", 109), ("bird", 49), ("truck", 8)]
    assert sorted(counts.values())[:3] == [1, 1, 1]


def test_a_category_without_a_class_is_named_and_has_no_outputs() -> None:
    space = LabelSpace("wordnet-4", ("n02690373", "n01440764", "n02123045", "n02123394"))
    mapped = map_categories(space, CATEGORIES)
    assert [found.tolist() for found in mapped.members if len(found)] == [[0], [2, 3]]
    assert mapped.description["classes"] == "3-of-4"
    assert mapped.description["categories"].startswith("2-of-16(none:bear,bicycle,bird,boat,bottle,car,chair")


def test_classes_of_the_same_name_are_the_category() -> None:
    mapped = map_categories(SHAPES16, SHAPES16.classes)
    assert [found.tolist() for found in mapped.members] == [[k] for k in range(16)]
    named = map_categories(LabelSpace("names-2", ("truck", "cat")), CATEGORIES)
    assert named.members[CATEGORIES.index("cat")].tolist() == [1]
    assert np.concatenate(named.members).tolist() == [1, 0]


@pytest.mark.parametrize("classes", [("n01440764", "n01443537"), ("n02123045", "n02123394")])
def test_fewer_than_two_categories_leave_nothing_to_decide(classes: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="at least two of the categories airplane, bear"):
        map_categories(LabelSpace("wordnet-2", classes), CATEGORIES)


def test_names_belong_to_one_set_of_categories() -> None:
    assert find_categories({"cat", "truck"}, "here") == CATEGORIES
    assert find_categories(set(SHAPES), "here") == tuple(SHAPES)
    assert find_categories({"oak", "elm"}, "here") == ("elm", "oak")
    with pytest.raises(InputError, match=r"found 2: catt, drug \(in here\)"):
        find_categories({"cat", "catt", "drug", "truck"}, "here")
