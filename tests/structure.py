"""What imports what in this project, read from the code: the graph that `test_structure` measures."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("train", "search")


@cache
def modules() -> dict[str, Path]:
    """Dotted name of every module of the project -> its file."""
    files = [*sorted((ROOT / "sept").rglob("*.py")), *(ROOT / f"{name}.py" for name in PROGRAMS)]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    return dict(sorted(names.items()))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def graph(everywhere: bool = False) -> dict[str, frozenset[str]]:
    """Module -> the modules of the project that it imports when it is imported itself; `everywhere`: or later, inside
    a function. What is there for types alone (TYPE_CHECKING) is imported by nobody."""
    return {name: frozenset(_imports(tree(path), everywhere) - {name}) for name, path in modules().items()}


def _imports(module: ast.Module, everywhere: bool) -> set[str]:
    found: set[str] = set()
    for node in _executed(module, everywhere):
        if isinstance(node, ast.ImportFrom) and node.module:
            for item in node.names:
                below = f"{node.module}.{item.name}"
                found.add(below if below in modules() else node.module)
        elif isinstance(node, ast.Import):
            found |= {item.name for item in node.names}
    return found & modules().keys()


def _executed(node: ast.AST, everywhere: bool):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.Lambda) and not everywhere:
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _executed(child, everywhere)


def package(module: str) -> str:
    """The part of `sept` that a module is in. A program, which nobody imports, stands for itself."""
    parts = module.split(".")
    return module if parts[-1] == "__main__" or parts[0] in PROGRAMS or len(parts) < 2 else parts[1]


def packages() -> dict[str, frozenset[str]]:
    """Package -> the packages that its modules import, anywhere."""
    found: dict[str, set[str]] = {}
    for name, others in graph(everywhere=True).items():
        found.setdefault(package(name), set()).update(map(package, others))
    return {name: frozenset(others - {name}) for name, others in found.items()}


def circle(edges: dict[str, frozenset[str]]) -> list[str]:
    """One circle of imports; nothing where there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        found = next((c for other in sorted(edges.get(name, ())) if (c := visit(other, [*path, name]))), [])
        done.add(name)
        return found

    return next((found for name in edges if (found := visit(name, []))), [])


def longest_chain() -> list[str]:
    """The longest way from a module down its imports to one that imports nothing of the project."""
    edges = graph()

    @cache
    def below(name: str) -> tuple[str, ...]:
        return (name, *max((below(other) for other in sorted(edges[name])), key=len, default=()))

    return list(max((below(name) for name in edges), key=len))
