"""The import order of ARCHITECTURE.md, read from the code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = [
    ["errors", "paths", "ranges", "signals", "lifeline", "config", "compose", "store", "results", "paper", "command"],
    [
        "models",
        "losses",
        "optim",
        "cost",
        "driver",
        "machine",
        "oom",
        "shared_memory",
        "forked",
        "surroundings",
        "progress",
        "engines",
        "distributed",
    ],
    ["data"],
    ["retrieval"],
    ["learners", "fit", "watch"],
    ["stages"],
    ["pipeline", "capability"],
    ["console", "plan", "show", "sweep", "tables", "tracking", "hub", "gpu"],
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
LEVEL |= {"train": len(ORDER), "search": len(ORDER)}
ALLOWED = {
    "hydra": {"compose", "train", "search"},
    "omegaconf": {"compose", "train", "search"},
    "lightning": {"learners", "fit", "watch", "stages", "tracking", "gpu"},
    "wandb": {"tracking"},
    "wandb_workspaces": {"tracking"},
    "faiss": {"retrieval"},
    "matplotlib": {"tables"},
}
LAZY = {"wandb", "wandb_workspaces", "faiss", "pymilvus", "ray", "matplotlib"}
TORCHLESS = [
    "config.py",
    "ranges.py",
    "compose.py",
    "errors.py",
    "command.py",
    "lifeline.py",
    "results.py",
    "pipeline.py",
    "plan.py",
    "sweep.py",
    "console.py",
    *(f"tables/{path.name}" for path in sorted((ROOT / "sept" / "tables").glob("*.py"))),
    "capability.py",
    "cost.py",
    "driver.py",
    "machine.py",
    "oom.py",
    "shared_memory.py",
    "hub.py",
    *(f"tracking/{name}.py" for name in ("__init__", "run", "workspace")),
]


def sources():
    return [*sorted((ROOT / "sept").rglob("*.py")), ROOT / "train.py", ROOT / "search.py"]


def part(path):
    inside = path.relative_to(ROOT).with_suffix("").parts
    return inside[1] if inside[0] == "sept" and len(inside) > 1 else inside[0]


def imported(node):
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"sept.{name.name}" for name in node.names] if node.module == "sept" else [node.module or ""]
    return []


def imports(path):
    """(module, whether the import is inside a function) of every import of a file."""
    tree = ast.parse(path.read_text())
    inside = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    return [(name, id(node) in inside) for node in ast.walk(tree) for name in imported(node)]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_its_own_group_or_those_before_it(path):
    if part(path) == "__init__":
        return
    for module, _ in imports(path):
        if module.startswith("sept."):
            other = module.split(".")[1]
            assert LEVEL[other] <= LEVEL[part(path)], f"{path.name} imports {module}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_hydra_lightning_and_optional_packages_stay_in_their_places(path):
    for module, lazy in imports(path):
        package = module.split(".")[0]
        assert package not in ALLOWED or part(path) in ALLOWED[package], f"{path.name} imports {module}"
        assert package not in LAZY or lazy, f"{path.name} imports {package} at its top"


@pytest.mark.parametrize("name", TORCHLESS)
def test_what_a_plan_imports_at_the_top_is_without_torch(name):
    heavy = {"torch", "torchvision", "timm", "lightning", "torchmetrics"}
    found = {module.split(".")[0] for module, lazy in imports(ROOT / "sept" / name) if not lazy}
    assert not found & heavy
