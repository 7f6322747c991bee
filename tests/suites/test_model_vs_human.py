"""The suites on model-vs-human's experiments: equal to its definitions, written out plainly on small files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from pixmim_eval.data.categories import CATEGORIES
from pixmim_eval.data.panels import open_trials
from pixmim_eval.data.stimuli import LEFT_OUT, open_stimuli
from pixmim_eval.data.trials import read_trial_file
from pixmim_eval.errors import InputError
from pixmim_eval.results import RunFolder
from pixmim_eval.suites import load_suite
from pixmim_eval.suites.decisions import GeometryOptions
from pixmim_eval.suites.human_benchmark import rank_models
from pixmim_eval.suites.model_vs_human import ModelVsHuman
from pixmim_eval.suites.observers import Observers
from pixmim_eval.types import LabelSpace, Model, ResultRow, SuiteConfig
from tests.data.files import encode, write
from tests.data.trial_files import HEADER, write_lines
from tests.fakes import make_model

SUITE, FROM_FILES = ModelVsHuman(), Observers()
LEVELS = {"edge": ("0",), "contrast": ("c100", "c50", "c10", "c01")}
OBSERVERS = ("subject-01", "subject-02", "subject-03", "net")
SPACE = LabelSpace("names-4", ("bear", "cat", "dog", "knife"))
SHOWN = 12  # images a level
Answers = Mapping[tuple[str, str], Sequence[tuple[str, str, str]]]  # (observer, experiment) -> level, right, given


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))
    yield


def list_images(experiment: str) -> list[tuple[str, str, str]]:
    """Level, right answer and name of each image."""
    random = np.random.default_rng(len(experiment))
    shown = [(level, number) for level in LEVELS[experiment] for number in range(SHOWN)]
    right = random.choice(SPACE.classes, len(shown)).tolist()
    return [(level, name, f"{name}-{level}-{number}.png") for (level, number), name in zip(shown, right, strict=True)]


def write_trials(folder: Path, observers: Sequence[str] = OBSERVERS) -> Path:
    """Observers who are right more often than not, each in an order of its own."""
    for seed, observer in enumerate(observers):
        for experiment in LEVELS:
            random = np.random.default_rng([seed, len(experiment)])
            images = list_images(experiment)
            lines = []
            for trial, place in enumerate(random.permutation(len(images)).tolist(), start=1):
                level, right, name = images[place]
                given = right if random.random() < 0.65 else random.choice([*SPACE.classes, "na"])
                shown = f"{trial:04d}_exp_s{seed}_{level}_{right}_00_{name}"
                lines.append(f"{observer},1,{trial},0.5,{given},{right},{level},{shown}")
            write_lines(folder / experiment / f"{experiment}_{observer}_session_1.csv", lines, header=HEADER.title())
    return folder


def write_stimuli(folder: Path) -> Path:
    for experiment in LEVELS:
        for number, (level, right, name) in enumerate(list_images(experiment)):
            noise = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
            image = encode(np.kron(noise, np.ones((56, 56, 1), dtype=np.uint8)))
            place = (
                f"{right}/{name}" if experiment == "edge" else f"dnn/session-1/0001_exp_dnn_{level}_{right}_00_{name}"
            )
            write(folder / experiment / place, image)
    return folder


def make_config(tmp_path: Path, *, stimuli: bool = True, **changes: object) -> SuiteConfig:
    files: dict[str, object] = {"trials": open_trials(str(write_trials(tmp_path / "raw-data")))}
    if stimuli:
        files["stimuli"] = open_stimuli(str(write_stimuli(tmp_path / "datasets")))
    fields: dict[str, object] = {"data": {}, "files": files, "workers": 0, "run": "demo", "out": tmp_path / "out"}
    return SuiteConfig(**{**fields, "options": GeometryOptions(), **changes})  # type: ignore[arg-type]


def read_right(file: Path) -> dict[str, dict[str, bool]]:
    """Level -> image -> whether the answer is right."""
    trials = read_trial_file(file)
    right: dict[str, dict[str, bool]] = {}
    columns = (trials.column(name) for name in ("condition", "imagename", "object_response", "category"))
    for level, image, given, shown in zip(*columns, strict=True):
        right.setdefault(level, {})[image.split("_")[-1]] = given == shown
    return right


def compare_plainly(one: dict[str, bool], other: dict[str, bool]) -> dict[str, float]:
    n = len(one)
    assert one.keys() == other.keys()
    p, q = sum(one.values()) / n, sum(other.values()) / n
    observed, expected = sum(one[k] == other[k] for k in one) / n, p * q + (1 - p) * (1 - q)
    kappa = 1.0 if observed == 1 else (observed - expected) / (1 - expected)
    return {"accuracy_difference": (p - q) ** 2, "observed_consistency": observed, "error_consistency": kappa}


class Plain:
    """The benchmark by its definition: mean over levels, then over people (pairs), then over experiments."""

    def __init__(self, folder: Path) -> None:
        self.right: dict[tuple[str, str], dict[str, dict[str, bool]]] = {}
        for observer in OBSERVERS:
            for experiment in LEVELS:
                self.add(observer, folder, experiment)

    def add(self, observer: str, folder: Path, experiment: str) -> None:
        file = folder / experiment / f"{experiment}_{observer}_session_1.csv"
        self.right[observer, experiment] = read_right(file)

    def levels(self, experiment: str) -> list[str]:
        found = self.right["subject-01", experiment]
        return [level for level in found if level not in LEFT_OUT.get(experiment, ())]

    def accuracy(self, observers: Sequence[str], experiment: str) -> float:
        kept = [self.right[o, experiment][level] for o in observers for level in self.levels(experiment)]
        return float(np.mean([value for images in kept for value in images.values()]))

    def compare(self, pairs: Sequence[tuple[str, str]], experiment: str, metric: str) -> float:
        return float(np.mean([
            np.mean([self._compare_level(one, other, experiment, level)[metric] for level in self.levels(experiment)])
            for one, other in pairs
        ]))  # fmt: skip

    def _compare_level(self, one: str, other: str, experiment: str, level: str) -> dict[str, float]:
        mine = self.right[one, experiment]
        return compare_plainly(mine.get(level) or mine["NaN"], self.right[other, experiment][level])


PEOPLE = OBSERVERS[:3]
PAIRS = list(combinations(PEOPLE, 2))
METRICS = ("accuracy_difference", "observed_consistency", "error_consistency")


def by_metric(rows: Sequence[ResultRow], model: str) -> dict[str, ResultRow]:
    return {row.metric: row for row in rows if row.model == model}


def small_model(name: str = "tiny") -> Model:
    return make_model(seed=3, space=SPACE, name=name)


@pytest.mark.parametrize("experiment", ["edge", "contrast"])
def test_a_model_beside_people_is_that_of_the_definition(tmp_path: Path, experiment: str) -> None:
    config = make_config(tmp_path)
    outcome = SUITE.run(small_model(), experiment, config)
    rows = by_metric(outcome.rows, "tiny")
    plain = Plain(tmp_path / "raw-data")
    plain.add("tiny", config.out / "raw-data", experiment)
    for metric in METRICS:
        expected = plain.compare([("tiny", person) for person in PEOPLE], experiment, metric)
        assert rows[f"{metric}_people"].value == pytest.approx(expected, abs=1e-14)
    expected = plain.compare([("tiny", "net")], experiment, "error_consistency")
    assert rows["error_consistency/net"].value == pytest.approx(expected, abs=1e-14)
    kept = 2 if experiment == "contrast" else 1
    assert rows["error_consistency_people"].n == kept * SHOWN == rows["category_accuracy"].n
    assert len(outcome.hits["category_accuracy"]) == len(LEVELS[experiment]) * SHOWN
    assert (outcome.hits["category_accuracy"] >= 0).sum() == kept * SHOWN


def test_levels_have_numbers_of_their_own_and_those_left_out_count_for_nothing_else(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    rows = by_metric(SUITE.run(small_model(), "contrast", config).rows, "tiny")
    assert {metric.split("/")[1] for metric in rows if metric.startswith("category_accuracy/")} == set(
        LEVELS["contrast"]
    )
    mean = (rows["category_accuracy/c50"].value + rows["category_accuracy/c10"].value) / 2
    assert rows["category_accuracy"].value == pytest.approx(mean)
    mean = (rows["error_consistency_people/c50"].value + rows["error_consistency_people/c10"].value) / 2
    assert rows["error_consistency_people"].value == pytest.approx(mean)
    assert "levels=c10,c50;" in rows["category_accuracy"].protocol


def test_the_benchmark_is_the_mean_over_experiments_and_people_are_its_ceiling(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    model = small_model()
    assert SUITE.conditions(config) == ["edge", "contrast", "benchmark"]
    rows = SUITE.run(model, "benchmark", config).rows
    (observers,) = SUITE.subjects(config)
    rows += SUITE.run(observers, "benchmark", config).rows
    assert sorted({row.model for row in rows}) == ["net", "people", "tiny"]
    plain = Plain(tmp_path / "raw-data")
    for experiment in LEVELS:
        plain.add("tiny", config.out / "raw-data", experiment)
    pairs = {"tiny": [("tiny", p) for p in PEOPLE], "net": [("net", p) for p in PEOPLE], "people": PAIRS}
    for name, those in pairs.items():
        found = by_metric(rows, name)
        for metric in METRICS:
            expected = np.mean([plain.compare(those, experiment, metric) for experiment in LEVELS])
            assert found[f"{metric}_people"].value == pytest.approx(expected, abs=1e-14)
        if name != "tiny":
            among = PEOPLE if name == "people" else (name,)
            expected = np.mean([plain.accuracy(among, experiment) for experiment in LEVELS])
            assert found["ood_accuracy"].value == pytest.approx(expected, abs=1e-14)
        assert found["ood_accuracy"].low < found["ood_accuracy"].value < found["ood_accuracy"].high
        assert found["ood_accuracy"].n == 3 * SHOWN
        assert "experiments=edge,contrast" in found["ood_accuracy"].protocol


def test_files_alone_give_the_same_numbers_without_images(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    SUITE.run(small_model(), "benchmark", config)
    for file in (config.out / "raw-data").rglob("*.csv"):
        write(tmp_path / "raw-data" / file.parent.name / file.name, file.read_bytes())
    from_files = SuiteConfig(data={}, files={"trials": open_trials(str(tmp_path / "raw-data"))})
    (observers,) = FROM_FILES.subjects(from_files)
    for condition in FROM_FILES.conditions(from_files):
        ours = by_metric(SUITE.run(small_model(), condition, config).rows, "tiny")
        again = by_metric(FROM_FILES.run(observers, condition, from_files).rows, "tiny")
        assert ours.keys() == again.keys()
        for metric, row in ours.items():
            assert again[metric].value == pytest.approx(row.value, abs=1e-14), metric


def test_files_of_cue_conflict_alone_give_the_shape_bias_too(shared_data: Path) -> None:
    config = SuiteConfig(data={}, files={"trials": open_trials(str(shared_data / "*_responses"))})
    (observers,) = FROM_FILES.subjects(config)
    rows = FROM_FILES.run(observers, "cue-conflict", config).rows
    assert f"{100 * by_metric(rows, 'people')['shape_bias'].value:.3f}" == "95.869"
    assert f"{100 * by_metric(rows, 'vgg')['shape_bias'].value:.3f}" == "17.219"
    assert f"{by_metric(rows, 'people')['error_consistency_people'].value:.3f}" == "0.331"
    assert all(f"shape_bias/{name}" in by_metric(rows, "people") for name in CATEGORIES)
    assert len({(row.model, row.metric) for row in rows}) == len(rows)


def test_the_table_ranks_models_by_the_mean_of_three_ranks_and_not_people(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    (observers,) = SUITE.subjects(config)
    rows = SUITE.run(observers, "benchmark", config).rows
    names = ("accuracy_difference_people", "observed_consistency_people", "error_consistency_people", "ood_accuracy")
    numbers = {"a": (0.1, 0.7, 0.2, 0.5), "b": (0.2, 0.8, 0.3, 0.6), "c": (0.3, 0.7, 0.1, 0.7)}
    template = rows[0]
    for model, values in numbers.items():
        for metric, value in zip(names, values, strict=True):
            fields = {**vars(template), "model": model, "metric": metric, "value": value}
            rows.append(ResultRow(**fields))
    table = rank_models([row for row in rows if row.model != "net"]).set_index("model")
    assert table.index.tolist() == ["b", "a", "c", "people"]
    assert table["mean_rank"].round(6).tolist()[:3] == [
        round((2 + 1 + 1) / 3, 6),
        round((1 + 2.5 + 2) / 3, 6),
        2.833333,
    ]
    assert np.isnan(table.loc["people", "mean_rank"])


def test_the_table_is_written_as_csv_and_markdown_once_there_are_rows(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    assert SUITE.draw([], config, tmp_path / "reports" / "figures") == []
    (observers,) = SUITE.subjects(config)
    RunFolder(config.out).write("0" * 16, SUITE.run(observers, "benchmark", config))
    table, text = SUITE.draw([], config, tmp_path / "reports" / "figures")
    assert table == tmp_path / "reports" / "tables" / "model-vs-human-benchmark.csv"
    with table.open(newline="") as file:
        net, people = csv.DictReader(file)
    assert (net["model"], net["mean_rank"], people["model"], people["mean_rank"]) == ("net", "1.0", "people", "")
    assert f"| people | {float(people['accuracy_difference_people']):.3f} |" in text.read_text()


def test_images_without_trials_and_trials_without_the_images_shown_are_refused(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    write(tmp_path / "datasets" / "silhouette" / "cat" / "cat1.png", encode(np.zeros((224, 224, 3), np.uint8)))
    more = {**config.files, "stimuli": open_stimuli(str(tmp_path / "datasets"))}
    with pytest.raises(InputError, match="found none of silhouette"):
        SUITE.conditions(SuiteConfig(data={}, files=more, options=GeometryOptions()))
    (tmp_path / "datasets" / "edge" / list_images("edge")[0][1] / "new.png").write_bytes(
        encode(np.zeros((224, 224, 3), np.uint8))
    )
    unseen = {**config.files, "stimuli": open_stimuli(str(tmp_path / "datasets" / "edge"))}
    with pytest.raises(InputError, match=r"never shown, 1: new\.png"):
        SUITE.roles(small_model(), "edge", SuiteConfig(data={}, files=unseen, options=GeometryOptions()))


def test_an_observer_missing_from_one_experiment_has_no_mean_over_all(tmp_path: Path) -> None:
    config = make_config(tmp_path, stimuli=False)
    (tmp_path / "raw-data" / "edge" / "edge_net_session_1.csv").unlink()
    config = SuiteConfig(data={}, files={"trials": open_trials(str(tmp_path / "raw-data"))})
    (observers,) = FROM_FILES.subjects(config)
    assert {row.model for row in FROM_FILES.run(observers, "benchmark", config).rows} == {"people"}
    assert "net" in {row.model for row in FROM_FILES.run(observers, "contrast", config).rows}


def test_the_suites_are_found_by_name() -> None:
    assert isinstance(load_suite("model_vs_human"), ModelVsHuman)
    assert isinstance(load_suite("observers"), Observers) and not load_suite("observers").takes_models
