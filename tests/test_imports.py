"""Imports run one way: what flows from images to result rows flows through the packages in that order."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pixmim_eval", "pretrain", "analysis")
LAYERS = (
    {"types", "errors", "seeds", "files", "flags", "devices", "pretraining", "progress"},
    {"data", "corruptions", "metrics", "models", "results"},
    {"training", "extract"},
    {"transfer"},
    {"adapters", "suites"},
    {"arguments", "follow", "tasks", "run"},
)
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}
PRETRAIN_MAY_USE = LAYERS[0] | {"data", "models", "training", "results"}
SUITES_ABOVE = {"pretrain.reconstruction": {"metrics", "extract", "suites"}}  # needs a decoder; may use what suites use
# Paired differences need two models' outcomes, which meet only here: metrics are pure NumPy, so no torch comes along.
ANALYSIS_MAY_USE = {"types", "errors", "files", "progress", "results", "metrics"}
WITHOUT_TORCH = ("pixmim_eval.metrics", "pixmim_eval.results", "pixmim_eval.types", "pixmim_eval.errors", "analysis")


def list_modules() -> dict[str, Path]:
    """Every module of the project by its dotted name; a package under the name of the package."""
    modules = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def find_imports(source: str, package: str) -> set[str]:
    """Dotted names that a source imports, inside functions too, less those for type checkers alone.

    `from a import b` gives both "a" and "a.b", as b may be a module; relative imports start from `package`.
    """
    names: set[str] = set()
    for node in _walk_runtime(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names.update({base, *(f"{base}.{alias.name}" for alias in node.names)})
    return names


def _walk_runtime(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        children: list[ast.AST] = [*node.orelse]
    else:
        children = [*ast.iter_child_nodes(node)]
    for child in children:
        yield from _walk_runtime(child)


def imports_of(module: str) -> set[str]:
    path = list_modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return find_imports(path.read_text("utf-8"), package)


def parts_of_harness(names: set[str]) -> set[str]:
    """First component under pixmim_eval of each imported name that is there."""
    seconds = {name.split(".")[1] for name in names if name.startswith("pixmim_eval.")}
    return seconds & set(LAYER_OF)


MODULES = list(list_modules())
HARNESS = [module for module in MODULES if module.startswith("pixmim_eval.")]


def test_the_walk_sees_lazy_and_relative_imports_and_no_annotations() -> None:
    source = (
        "import a.b\nfrom .. import c\nfrom .d import e\nif TYPE_CHECKING:\n    import f\nelse:\n    import g\n"
        "def h():\n    from i import j\n"
    )
    expected = {"a.b", "p", "p.c", "p.q.d", "p.q.d.e", "g", "i", "i.j"}
    assert find_imports(source, "p.q") == expected


def test_every_part_of_the_harness_has_a_place() -> None:
    assert {module.split(".")[1] for module in HARNESS} <= set(LAYER_OF)


@pytest.mark.parametrize("module", HARNESS)
def test_no_part_imports_from_a_later_layer(module: str) -> None:
    layer = LAYER_OF[module.split(".")[1]]
    assert not {part for part in parts_of_harness(imports_of(module)) if LAYER_OF[part] > layer}


def test_parts_do_not_import_each_other_in_circles() -> None:
    graph: dict[str, set[str]] = {part: set() for part in LAYER_OF}
    for module in HARNESS:
        part = module.split(".")[1]
        graph[part] |= parts_of_harness(imports_of(module)) - {part}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_meet_only_where_they_may(package: str) -> None:
    allowed = {"pixmim_eval": set(LAYER_OF), "pretrain": PRETRAIN_MAY_USE, "analysis": ANALYSIS_MAY_USE}[package]
    strangers = {*PACKAGES, "tests", "benchmarks"} - {package, "pixmim_eval"}
    wrong = set()
    for module in MODULES:
        if module.split(".")[0] == package:
            names = imports_of(module)
            wrong |= {(module, name) for name in names if name.split(".")[0] in strangers}
            wrong |= {(module, part) for part in parts_of_harness(names) - allowed - SUITES_ABOVE.get(module, set())}
    assert not wrong


@pytest.mark.parametrize("package", WITHOUT_TORCH)
def test_what_only_counts_and_draws_never_names_torch(package: str) -> None:
    modules = [module for module in MODULES if f"{module}.".startswith(f"{package}.")]
    heavy = {"torch", "torchvision", "timm", "lightning_fabric"}
    wrong = {(module, name) for module in modules for name in imports_of(module) if name.split(".")[0] in heavy}
    assert not wrong


def test_what_only_counts_and_draws_loads_without_torch() -> None:
    modules = [module for module in MODULES if f"{module}.".startswith(tuple(f"{name}." for name in WITHOUT_TORCH))]
    program = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
