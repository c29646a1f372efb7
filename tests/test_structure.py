"""How much a newcomer has to hold: import chains, circles, sizes, what a run goes through, what an entry touches."""

import ast
import re

import pytest
import ready
from conftest import LONGEST_S, TINY, environment
from structure import ROOT, circle, graph, longest_chain, modules, packages, tree

from sept.methods import METHODS
from sept.retrievers import FEATURES
from sept.selectors import SELECTORS

DEPTH, FILE_LINES, FUNCTION_LINES = 12, 350, 60
RUN = 136  # modules, of 320, and a recipe of each method: a guard against more; the aim is 80
COUNTED = """
import sys
from sept import api
for init in ("rand_init", "random", "sept"):
    api.run([*sys.argv[1:], f"init={init}"])
print("modules:", *(name for name in sys.modules if name.partition(".")[0] == "sept"))
"""


def test_no_chain_of_imports_is_long():
    chain = longest_chain()
    assert len(chain) <= DEPTH, " -> ".join(chain)


def test_nothing_imports_in_a_circle():
    assert circle(graph(everywhere=True)) == []
    assert circle(packages()) == []


def test_a_circle_would_be_found():
    assert circle({"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("b")}) == ["b", "c", "b"]
    assert circle({"a": frozenset("bc"), "b": frozenset("c"), "c": frozenset()}) == []


@pytest.mark.parametrize("name", [*modules()])
def test_files_and_functions_are_short(name):
    path = modules()[name]
    assert len(path.read_text().splitlines()) <= FILE_LINES
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < FUNCTION_LINES, f"{path.name}: {node.name}"


def test_the_quickstart_goes_through_few_modules(tmp_path):
    """Those that its runs execute of the project, without those that hold a docstring alone."""
    (tmp_path / "counted.py").write_text(COUNTED)
    settings = [each for each in TINY if not each.startswith("retriever")]
    done = ready.start([str(tmp_path / "counted.py"), *settings], environment(tmp_path / "store"), tmp_path)
    out, err = done.communicate(LONGEST_S)
    assert done.returncode == 0, err
    [names] = re.findall(r"^modules: (.*)$", out, re.MULTILINE)
    found = [name for name in names.split() if len(tree(modules()[name]).body) > 1]
    assert len(found) <= RUN + len(METHODS), sorted(found)


AMBIGUOUS = {"sept", "random", "classifier", "cls", "mean", "pooled"}  # words that are said of other things, too
COLOURS = "tables/figures.py"  # of the selectors here; one that it does not name is drawn too


def entries():
    """(name, the places in `sept` where it may stand in quotes) of every method, selector and feature."""
    for name in METHODS:
        yield name, ("methods/__init__.py", f"methods/{name}/")
    for name in SELECTORS:
        yield name, ("selectors/", COLOURS)
    for name in FEATURES:
        yield name, ("retrievers/",)


@pytest.mark.parametrize(
    ("name", "places"), [pytest.param(*each, id=each[0]) for each in entries() if each[0] not in AMBIGUOUS]
)
def test_a_method_selector_or_feature_is_named_in_its_own_place_alone(name, places):
    """Beside conf/, tests, docs and the checks on GPUs, which are tests too."""
    for path in modules().values():
        inside = path.relative_to(ROOT).as_posix().removeprefix("sept/")
        if not inside.startswith((*places, "gpu/")):
            found = [node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)]
            assert name not in found, f"{inside} names {name!r}"


PLUGINS = [  # (its module or package, who may import it)
    *((f"sept.methods.{name}", {"sept.methods"}) for name in METHODS),
    *((entry.choose.partition(":")[0], set()) for entry in SELECTORS.values() if entry.choose),
]


@pytest.mark.parametrize(("own", "table"), [pytest.param(*each, id=each[0]) for each in PLUGINS])
def test_nothing_imports_a_method_or_selector_but_its_table(own, table):
    outside = {
        name
        for name, others in graph(everywhere=True).items()
        if any(other == own or other.startswith(f"{own}.") for other in others)
        and not name.startswith((own, "sept.gpu."))
    }
    assert outside == table
