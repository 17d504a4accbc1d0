"""The rooms' arrows of docs/architecture.md, read from the imports in the source; and what flies imports no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARROWS: dict[str, set[str]] = {
    "data": set(),
    "runtimes": {"data"},
    "models": {"data"},
    "compress": {"models", "runtimes", "data"},
    "export": {"models", "runtimes", "data"},
    "devices": {"runtimes", "data"},
    "reports": {"devices", "runtimes", "data"},
}
# Inside the rooms: what lies in each may import of its neighbours there. In the front room from the recipe to the command line.
INSIDE: dict[str, dict[str, set[str]]] = {
    "data": {
        "scenes": set(),
        "samples": {"scenes"},
        "boxes": {"samples", "scenes"},
        "captions": {"samples", "scenes"},
        "metrics": {"boxes", "scenes"},
        "sets": {"boxes", "captions", "samples", "scenes"},
    },
    "runtimes": {
        "bundle": set(),
        "onnxruntime": {"bundle"},
        "openvino": {"bundle"},
        "litert": {"bundle"},
        "myriad": {"bundle"},
        "tensorrt": {"bundle"},
        "inference": {"bundle", "openvino"},
    },
    "models": {
        "layers": set(),
        "families": {"layers"},
        "students": {"families", "layers", "outside"},
        "outside": set(),
        "vlm": {"families"},
    },
    "compress": {"distill": set(), "prune": {"distill"}, "quantize": set()},
    "export": {"onnx": set(), "targets": {"onnx"}},
    "devices": {
        "onboard": set(),
        "profiles": {"onboard"},
        "predict": {"onboard", "profiles"},
        "measure": {"onboard"},
        "mission": {"measure", "predict", "profiles"},
        "remote": {"measure", "onboard", "predict", "profiles"},
    },
    "rsedge": {
        "recipe": set(),
        "cache": set(),
        "results": {"cache", "recipe"},
        "tasks": {"cache", "recipe", "results"},
        "stages": {"cache", "recipe", "results", "tasks"},
        "pipeline": {"cache", "recipe", "results", "tasks", "stages"},
        "cli": {"cache", "recipe", "results", "tasks", "stages", "pipeline"},
    },
}
# What must never be needed on board, not even inside a function.
GROUND_ONLY = {"torch", "torchvision", "timm", "nncf", "segmentation_models_pytorch", "torch_pruning", "torchgeo"}
# The one reader in a room that flies which is for the ground: loaded when a recipe names a survey data set, never on board.
GROUND_READERS = {"data/sets/torchgeo.py"}


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports(path: Path, package: str) -> Iterator[str]:
    """Absolute names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(filter(None, [package, base]))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def below(path: Path, package: str) -> set[str]:
    """What a file imports that lies directly in a package, by name."""
    return {
        name.split(".")[package.count(".") + 1] for name in imports(path, package) if name.startswith(f"{package}.")
    }


def rooms_imported(path: Path) -> set[str]:
    return below(path, "rsedge")


@pytest.mark.parametrize("room", ARROWS)
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports rsedge.{other}"
        for path in sources(room)
        for other in rooms_imported(path) - ARROWS[room] - {room}
    }
    assert not wrong


@pytest.mark.parametrize(("room", "inside"), [(room, inside) for room, rooms in INSIDE.items() for inside in rooms])
def test_inside_a_room_arrows_go_one_way(room: str, inside: str) -> None:
    package = room if room == "rsedge" else f"rsedge.{room}"
    wrong = {
        f"{path.relative_to(ROOT)} imports {package}.{other}"
        for path in sources(f"{room}/{inside}")
        for other in below(path, package) & set(INSIDE[room]) - INSIDE[room][inside] - {inside}
    }
    assert not wrong


@pytest.mark.parametrize("room", INSIDE)
def test_every_room_inside_a_room_has_its_arrows(room: str) -> None:
    assert {p.parent.name for p in (ROOT / room).glob("*/__init__.py")} <= set(INSIDE[room])


def modules() -> dict[str, Path]:
    """All modules of ours, by the names they are imported under."""
    found = {}
    for room in ("rsedge", *ARROWS):
        for path in sources(room):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts if room == "rsedge" else ("rsedge", *parts))
            found[name.removesuffix(".__init__")] = path
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions and for types alone count too."""
    known = modules()
    reached = {}
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        named = set(imports(path, package)) & set(known) - {name}
        # ``from package import module`` is an import of the module alone.
        reached[name] = {one for one in named if not any(other.startswith(f"{one}.") for other in named)}
    while leaves := {name for name, found in reached.items() if not found & set(reached)}:
        reached = {name: found for name, found in reached.items() if name not in leaves}
    assert not {name: sorted(found & set(reached)) for name, found in reached.items()}


TASK_DOORS = {"base", "registry"}
TOLD_APART = {"isinstance", "issubclass", "cast"}


def classes_in(paths: list[Path]) -> set[str]:
    """Names of the classes that modules define."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in paths)
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def names_in(node: ast.AST) -> set[str]:
    """Names and attributes anywhere below a node."""
    found = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            found.add(inner.id)
        elif isinstance(inner, ast.Attribute):
            found.add(inner.attr)
    return found


def forks_on(tree: ast.AST, classes: set[str]) -> Iterator[int]:
    """Lines that ask of what class something is: calls, and patterns of ``match``."""
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call) and names_in(node.func) & TOLD_APART
        if (called or isinstance(node, ast.MatchClass)) and names_in(node) & classes:
            yield getattr(node, "lineno", 0)


@pytest.mark.parametrize("inside", ["stages", "pipeline", "results"])
def test_stages_know_tasks_by_their_contract_alone(inside: str) -> None:
    tasks = sources("rsedge/tasks")
    of_tasks = classes_in(tasks)
    assert {"Task", "SceneTask", "BoxTask", "SampleHeldOut"} <= of_tasks
    contract = classes_in([path for path in tasks if path.stem in TASK_DOORS])
    wrong = []
    for path in sources(f"rsedge/{inside}"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        wrong += [f"{path} imports {name}" for name in below(path, "rsedge.tasks") - TASK_DOORS]
        wrong += [f"{path} names {name}" for name in names_in(tree) & (of_tasks - contract)]
        wrong += [f"{path}:{line} asks of what class a task is" for line in forks_on(tree, of_tasks)]
    assert not wrong


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("isinstance(task, BoxTask)", True),
        ("assert isinstance(ctx.task, base.Task) and ctx", True),
        ("cast('SampleTask', task), cast(SampleTask, task)", True),
        ("match task:\n    case BoxTask(): pass", True),
        ("isinstance(net, Probe)", False),
    ],
)
def test_a_fork_on_a_task_would_be_found(code: str, found: bool) -> None:
    assert bool(list(forks_on(ast.parse(code), {"Task", "BoxTask", "SampleTask"}))) is found


@pytest.mark.parametrize("room", ["data", "runtimes"])
def test_what_flies_names_no_ground_module(room: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(room)
        if str(path.relative_to(ROOT)) not in GROUND_READERS
        for name in imports(path, f"rsedge.{room}")
        if name.partition(".")[0] in GROUND_ONLY
    }
    assert not wrong


def test_the_table_in_the_docs_is_the_one_held_here() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    table = {cells[0].strip().strip("`/"): cells[2].strip() for cells in rows if len(cells) == 3}
    written = {room: set() if may == "nothing of ours" else set(may.split(", ")) for room, may in table.items()}
    assert {room: written[room] for room in ARROWS} == ARROWS


PROBE = """
import importlib, pkgutil, sys
import rsedge.runtimes, rsedge.cli.main, rsedge.recipe.reading
names = [m.name for m in pkgutil.walk_packages(rsedge.runtimes.__path__, "rsedge.runtimes.")]
for name in names:
    importlib.import_module(name)
for name in ("bands", "errors", "files", "metrics.confusion", "sets.sample_sources"):
    importlib.import_module("rsedge.data." + name)
loaded = {m.partition(".")[0] for m in sys.modules}
print(sorted(loaded & set(sys.argv[1:])))
"""


def test_importing_what_flies_and_the_command_line_loads_no_torch() -> None:
    command = [sys.executable, "-c", PROBE, *GROUND_ONLY, "scipy", "matplotlib"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


CHECKOUT = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
sys.path.insert(0, sys.argv[1])
import rsedge.runtimes, rsedge.cli.main
print(rsedge.runtimes.__file__)
"""


def test_the_rooms_are_found_from_the_root_of_a_checkout(tmp_path: Path) -> None:
    """Without an editable install, as where a wheel is installed."""
    command = [sys.executable, "-c", CHECKOUT, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == ROOT / "runtimes/__init__.py"
