"""ImageNet's label space, and label spaces mapped onto each other."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
import pytest
from timm.data import ImageNetInfo

from pixmim_eval.data.imagenet import imagenet_space, map_labels, resolve_names, subset_classes
from pixmim_eval.errors import InputError
from pixmim_eval.types import LabelSpace


def test_imagenet_has_its_thousand_classes_in_order() -> None:
    classes = imagenet_space().classes
    assert len(classes) == 1000
    assert list(classes) == sorted(classes)
    known = {
        0: "n01440764",
        1: "n01443537",
        207: "n02099601",
        340: "n02391049",
        999: "n15075141",
    }  # golden retriever, …
    assert {index: classes[index] for index in known} == known


def test_imagenet_a_and_r_have_two_hundred_classes_each_and_share_86() -> None:
    adversarial, renditions = subset_classes("imagenet-a"), subset_classes("imagenet-r")
    assert (len(set(adversarial)), len(set(renditions))) == (200, 200)
    assert len({*adversarial} & {*renditions}) == 86
    for classes, published in ((adversarial, [6, 11, 13, 15, 17]), (renditions, [1, 2, 4, 6, 8])):
        places = map_labels(LabelSpace("x", classes), imagenet_space())
        assert places[:5].tolist() == published  # the first of the lists in the authors' code
        assert list(places) == sorted(places)


def test_labels_map_to_their_place_in_the_model() -> None:
    space = LabelSpace("wordnet-3", ("n01443537", "n02391049", "n15075141"))
    assert map_labels(space, imagenet_space()).tolist() == [1, 340, 999]
    assert map_labels(imagenet_space(), imagenet_space()).tolist() == list(range(1000))
    assert map_labels(space, space).dtype == np.int64


def test_classes_that_the_model_lacks_are_named() -> None:
    space = LabelSpace("names-5", ("n01443537", "pear", "quince", "apple", "plum"))
    with pytest.raises(InputError, match=r"4 it does not know, e\.g\. pear, quince, apple"):
        map_labels(space, imagenet_space())


def test_the_descriptions_of_imagenet_become_wordnet_ids() -> None:
    info = ImageNetInfo()
    names = [info.index_to_description(index) for index in range(1000)]
    assert resolve_names(names) == imagenet_space().classes
    names[134], names[517] = "crane, bird", "crane2"
    assert resolve_names(names) == imagenet_space().classes
    random.Random(0).shuffle(names)
    assert resolve_names(names) == tuple(names)
    assert resolve_names(["tench", "goldfish"]) == ("tench", "goldfish")


def test_the_tiny_imagenet_classes_belong_to_imagenet(shared_data: Path) -> None:
    with (shared_data / "tiny_imagenet_100" / "classes.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    places = map_labels(LabelSpace("x", tuple(record["wnid"] for record in records)), imagenet_space())
    info = ImageNetInfo()
    names = [info.index_to_description(int(place)).split(",")[0] for place in places]
    assert sum(name == record["name"].split(",")[0] for name, record in zip(names, records, strict=True)) >= 99
