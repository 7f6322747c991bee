"""The 16 everyday categories that people were tested with, and which classes of ImageNet belong to each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from pixmim_eval.data.shapes16.shapes import SHAPES
from pixmim_eval.errors import InputError
from pixmim_eval.types import LabelSpace

# WordNet ids of the 207 of ImageNet-1k's classes that belong to a category.
# Source: Geirhos et al., NeurIPS 2018, appendix; bethgelab/model-vs-human, helper/human_categories.py.
CATEGORY_CLASSES = {
    name: tuple(ids.split())
    for name, ids in {
        "airplane": "n02690373",
        "bear": "n02132136 n02133161 n02134084 n02134418",
        "bicycle": "n02835271 n03792782",
        "bird": """
            n01514859 n01530575 n01531178 n01532829 n01534433 n01537544 n01558993 n01560419 n01582220 n01592084
            n01601694 n01614925 n01616318 n01622779 n01795545 n01796340 n01797886 n01798484 n01817953 n01818515
            n01819313 n01820546 n01824575 n01828970 n01829413 n01833805 n01843065 n01843383 n01855032 n01855672
            n01860187 n02002556 n02002724 n02006656 n02007558 n02009229 n02009912 n02011460 n02013706 n02017213
            n02018207 n02018795 n02025239 n02027492 n02028035 n02033041 n02037110 n02051845 n02056570
        """,
        "boat": "n02951358 n03344393 n03662601 n04273569 n04612504",
        "bottle": "n02823428 n03937543 n03983396 n04557648 n04560804 n04579145 n04591713",
        "car": "n02814533 n03100240 n04285008",
        "cat": "n02123045 n02123159 n02123394 n02123597 n02124075 n02125311",
        "chair": "n02791124 n03376595 n04099969 n04429376",
        "clock": "n02708093 n03196217 n04548280",
        "dog": """
            n02085782 n02085936 n02086079 n02086240 n02086646 n02086910 n02087046 n02087394 n02088094 n02088238
            n02088364 n02088466 n02088632 n02089078 n02089867 n02089973 n02090379 n02090622 n02090721 n02091032
            n02091134 n02091244 n02091467 n02091635 n02091831 n02092002 n02092339 n02093256 n02093428 n02093647
            n02093754 n02093859 n02093991 n02094114 n02094258 n02094433 n02095314 n02095570 n02095889 n02096051
            n02096294 n02096437 n02096585 n02097047 n02097130 n02097209 n02097298 n02097474 n02097658 n02098105
            n02098286 n02099267 n02099429 n02099601 n02099712 n02099849 n02100236 n02100583 n02100735 n02100877
            n02101006 n02101388 n02101556 n02102040 n02102177 n02102318 n02102480 n02102973 n02104029 n02104365
            n02105056 n02105162 n02105251 n02105505 n02105641 n02105855 n02106030 n02106166 n02106382 n02106550
            n02106662 n02107142 n02107312 n02107574 n02107683 n02107908 n02108000 n02108422 n02108551 n02108915
            n02109047 n02109525 n02109961 n02110063 n02110185 n02110627 n02110806 n02110958 n02111129 n02111277
            n02111500 n02112018 n02112350 n02112706 n02113023 n02113624 n02113712 n02113799 n02113978
        """,
        "elephant": "n02504013 n02504458",
        "keyboard": "n03085013 n04505470",
        "knife": "n03041632",
        "oven": "n04111531",
        "truck": "n03345487 n03417042 n03770679 n03796401 n03930630 n03977966 n04461696 n04467665",
    }.items()
}
CATEGORIES = tuple(CATEGORY_CLASSES)
_KNOWN_SETS = (CATEGORIES, tuple(SHAPES))


@dataclass(frozen=True)
class CategoryMap:
    """Which outputs of a model belong to each category.

    Args:
        categories: names of C categories.
        members: C arrays int64 [k], outputs of the model; empty where it has no class of the category, which then can
            never be its answer.
        outputs: number of the model's outputs.
    """

    categories: tuple[str, ...]
    members: tuple[np.ndarray, ...]
    outputs: int

    @property
    def description(self) -> dict[str, str]:
        """For the protocol of a row: categories "16" or "14-of-16(none:bear,oven)", and classes "207-of-1000"."""
        without = [name for name, found in zip(self.categories, self.members, strict=True) if not len(found)]
        count, used = len(self.categories), sum(map(len, self.members))
        categories = f"{count - len(without)}-of-{count}(none:{','.join(without)})" if without else str(count)
        return {"categories": categories, "classes": f"{used}-of-{self.outputs}"}


def map_categories(space: LabelSpace, categories: Sequence[str]) -> CategoryMap:
    """Finds the classes of each category in a model's label space.

    A class belongs to the category of its own name (shapes16, or a head fitted on folders of these names), or to one of
    the 16 categories by its WordNet id.

    Args:
        space: of the model.
        categories: of the images.

    Raises:
        InputError: classes of fewer than two categories: there would be nothing to choose between.
    """
    names = {name: {name, *CATEGORY_CLASSES.get(name, ())} for name in categories}
    members = tuple(
        np.array([place for place, label in enumerate(space.classes) if label in names[name]], dtype=np.int64)
        for name in categories
    )
    covered = [name for name, found in zip(categories, members, strict=True) if len(found)]
    if len(covered) < 2:
        raise InputError(
            "classes of the model",
            expected=f"some of at least two of the categories {', '.join(categories)}",
            found=f"those of {covered[0] if covered else 'none'}, among {list_some(space.classes)}",
            where=f"label space {space.name}",
            fix="Use an ImageNet classifier, or fit a head on images whose classes have WordNet ids or these names: "
            "--data train=PATH.",
        )
    return CategoryMap(tuple(categories), members, len(space.classes))


def find_categories(names: Collection[str], where: str) -> tuple[str, ...]:
    """The categories that images or trials with these labels are about.

    The 16 of model-vs-human or those of shapes16 where one of the names is among them, and else the names themselves.

    Raises:
        InputError: names that are partly of a known set of categories, or fewer than two of an unknown one.
    """
    for known in _KNOWN_SETS:
        if unknown := sorted(set(names) - set(known)):
            if len(unknown) == len(set(names)):
                continue
            raise InputError(
                "categories",
                expected=f"those of one set, such as {', '.join(known)}",
                found=list_some(unknown),
                where=where,
                fix="Correct the names; in a set of your own no category may be called like one of these unless all "
                "are.",
            )
        return known
    return tuple(sorted(set(names)))


def list_some(names: Collection[str]) -> str:
    """For messages: how many names there are, and the first three: "5: a, b, c …"."""
    return f"{len(names)}: {', '.join(sorted(names)[:3])}{' …' if len(names) > 3 else ''}"
