"""Which way the doors open: a room imports only rooms below it, and `import pellucid` costs NumPy and nothing more."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pellucid

SOURCE = Path(pellucid.__file__).parent
LEVELS = (
    {"errors", "trees"},
    {"registry", "files", "sequences"},
    {"schedules", "history"},
    {"initializers", "regularizers", "optimizers", "metrics", "data", "signal", "sound"},
    {"engines"},
    {"losses", "layers"},
    {"network"},
    {"inspect", "runs"},
    {"training"},
    {"estimators", "experiment", "tasks", "tune", "lab", "zoo"},
    {"cli"},
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
TOGETHER = LEVELS[-2]  # rooms of one level that may use each other

# The methods that open a door to a room above, inside the function that needs it and nowhere else.
FACADES = {
    "network/base.py": {"training", "inspect"},  # net.fit, net.predict, net.evaluate, net.summary
    "history.py": {"inspect"},  # history.plot
    "signal.py": {"layers", "network"},  # signal.as_layer: a filter as a network
}
DOOR = ("__init__.py", "__main__.py")
FILES = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py"))
BUILT_ON = {  # nothing without it, and itself imported where it is used
    "estimators.py": {"sklearn"},  # its classes are scikit-learn's estimators
    **{f"engines/jax/{name}.py": {"jax"} for name in ("ops", "placement", "towers")},
}
HEAVY = [
    *("matplotlib", "sklearn", "scipy", "rich", "jax", "torch", "pandas"),
    *("pyarrow", "PIL", "safetensors", "tomli_w", "optuna"),
]


def room_of(path: str) -> str:
    return Path(path).parts[0].removesuffix(".py")


def imports(path: str) -> list[tuple[str, bool]]:
    """Each module of pellucid that the file imports when it runs, and whether a function does it."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            of_package = node.module == "pellucid"
            found.extend((f"pellucid.{n.name}" if of_package else str(node.module), inside) for n in node.names)
        elif isinstance(node, ast.Import):
            found.extend((name.name, inside) for name in node.names)
        inside = inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse((SOURCE / path).read_text(encoding="utf-8")), False)
    return found


def rooms_imported(path: str) -> list[tuple[str, bool]]:
    modules = [(module, inside) for module, inside in imports(path) if module.startswith("pellucid.")]
    rooms = [(module.split(".")[1], inside) for module, inside in modules]
    return [(room, inside) for room, inside in rooms if room not in (room_of(path), "__version__")]


@pytest.mark.parametrize("path", [path for path in FILES if path not in DOOR])
def test_an_arrow_never_turns_back(path):
    here = room_of(path)
    assert here in LEVEL, f"say in LEVELS of {Path(__file__).name} where {here} belongs"
    for room, inside in rooms_imported(path):
        if inside and room in FACADES.get(path, ()):
            continue
        together = {room, here} <= TOGETHER
        assert LEVEL[room] < LEVEL[here] or together, f"{path} imports {room}, which is not below {here}"


@pytest.mark.parametrize("path", FACADES)
def test_a_facade_is_still_needed(path):
    assert {room for room, inside in rooms_imported(path) if inside} >= FACADES[path]


def test_the_door_imports_nothing_but_errors():
    assert {room for room, _ in rooms_imported("__init__.py")} <= {"errors"}
    assert "numpy" not in {module for module, _ in imports("__init__.py")}


@pytest.mark.parametrize("path", FILES)
def test_heavy_dependencies_are_imported_where_they_are_used(path):
    at_the_top = {module.partition(".")[0] for module, inside in imports(path) if not inside}
    assert at_the_top & set(HEAVY) <= BUILT_ON.get(path, set())


@pytest.mark.parametrize(
    "use",
    [
        "import pellucid",
        "import pellucid as pl; pl.Dense",
        "import pellucid as pl; pl.Sequential(pl.Dense(3), input_shape=2, engine='numpy')",
        "import pellucid.cli",
    ],
    ids=["import", "a layer", "a network", "the command line"],
)
def test_what_an_import_costs(use):
    script = f"{use}\nimport sys, json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_bare_import_loads_no_room_at_all():
    script = "import sys, pellucid; print(*[m for m in sys.modules if m.startswith('pellucid.')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_promised_name_is_there_or_its_room_is_not_built_yet():
    missing = []
    for name in pellucid.__all__:
        try:
            getattr(pellucid, name)
        except ModuleNotFoundError as problem:
            missing.append(str(problem.name))
    assert all(name.startswith("pellucid.") for name in missing)
    assert set(dir(pellucid)) >= set(pellucid.__all__)


def test_an_unknown_name_says_the_nearest():
    with pytest.raises(AttributeError, match="Dense"):
        pellucid.Dence  # noqa: B018
