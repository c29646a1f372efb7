"""The order of the packages, and what is imported only when it is used: read from the code."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = [  # a package imports only from those before it
    *("errors", "paths", "ranges", "paper", "costs", "runtime", "store", "backbones", "data", "retrieval", "training"),
    *("methods", "retrievers", "transfer", "selectors", "engines", "config", "stages", "capability", "compose"),
    *(
        "overrides",
        "results",
        "pipeline",
        "app",
        "api",
        "tables",
        "ledger",
        "tracking",
        "gpu",
        "commands",
        "__main__",
        "train",
        "search",
    ),
]
LEVEL = {name: level for level, name in enumerate(ORDER)}
ALLOWED = {
    "hydra": {"compose", "commands"},
    "omegaconf": {"compose", "commands"},
    "lightning": {"training", "transfer", "tracking", "gpu"},
    "wandb": {"tracking"},
    "wandb_workspaces": {"tracking"},
    "faiss": {"retrieval"},
    "pymilvus": {"retrieval"},
    "ray": {"engines"},
    "matplotlib": {"tables"},
}
LAZY = {"wandb", "wandb_workspaces", "faiss", "pymilvus", "ray", "matplotlib"}
HEAVY = {"torch", "torchvision", "timm", "lightning", "torchmetrics"}
TORCHLESS = [  # where a plan, a table or a help text begins
    *(
        "train.py",
        "search.py",
        "sept/commands/train.py",
        "sept/commands/search.py",
        "sept/config.py",
        "sept/pipeline.py",
        "sept/capability.py",
        "sept/compose/__init__.py",
    ),
    *("sept/results.py", "sept/runtime/hardware.py", "sept/runtime/driver.py", "sept/runtime/failures.py"),
    *(f"sept/tracking/{name}.py" for name in ("__init__", "run", "workspace")),
    *(
        f"sept/{package}/{path.name}"
        for package in ("app", "stages", "tables")
        for path in sorted((ROOT / "sept" / package).glob("*.py"))
        if path.name not in ("search_report.py", "shared_search.py")  # of the work itself, imported by it
    ),
]


def sources():
    return [*sorted((ROOT / "sept").rglob("*.py")), ROOT / "train.py", ROOT / "search.py"]


def part(path):
    """A package; a program, which nobody imports, comes after all of them."""
    if path.name == "__main__.py":
        return "__main__"
    inside = path.relative_to(ROOT).with_suffix("").parts
    return inside[1] if inside[0] == "sept" and len(inside) > 1 else inside[0]


def imported(node):
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"sept.{name.name}" for name in node.names] if node.module == "sept" else [node.module or ""]
    return []


@cache
def imports(path):
    """(module, whether the import is inside a function) of every import of a file."""
    tree = ast.parse(path.read_text())
    inside = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    return [(name, id(node) in inside) for node in ast.walk(tree) for name in imported(node)]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_its_own_package_or_those_before_it(path):
    if part(path) == "__init__":
        return
    inside = path.relative_to(ROOT).as_posix().removeprefix("sept/")
    for module, _ in imports(path):
        if module.startswith("sept."):
            assert LEVEL[module.split(".")[1]] <= LEVEL[part(path)], f"{inside} imports {module}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_hydra_lightning_and_optional_packages_stay_in_their_places(path):
    for module, lazy in imports(path):
        package = module.split(".")[0]
        assert package not in ALLOWED or part(path) in ALLOWED[package], f"{path.name} imports {module}"
        assert package not in LAZY or lazy, f"{path.name} imports {package} at its top"


@cache
def loaded(module):
    """The files of the project that an import of a module runs by itself: of its packages too."""
    names = module.split(".")
    bases = [ROOT.joinpath(*names[:end]) for end in range(1, len(names) + 1)]
    return [path for base in bases for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()]


@cache
def at_the_top(path):
    """(name, whether it may be a module's) of all that a file imports when it is imported itself."""
    tree = ast.parse(path.read_text())
    inside = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    for_types = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    inside |= {id(node) for each in for_types for node in ast.walk(each)}
    found = []
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        found += imported(node)
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{name.name}" for name in node.names]
    return found


@pytest.mark.parametrize("name", TORCHLESS)
def test_what_a_plan_imports_is_without_torch_all_the_way_down(name):
    found, todo = set(), [(ROOT / name, name)]
    while todo:
        path, way = todo.pop()
        if path in found:
            continue
        found.add(path)
        for module in at_the_top(path):
            assert module.split(".")[0] not in HEAVY, f"{way} imports {module}"
            todo += [(each, f"{way} > {each.relative_to(ROOT)}") for each in loaded(module)]
