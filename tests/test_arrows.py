"""The rooms' arrows of docs/architecture.md, read from the imports in the source; and what flies imports no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from rsedge.runtimes.registry import backend_names

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
        "wholes": set(),
        "bundle": {"wholes"},
        "onnxruntime": {"bundle"},
        "openvino": {"bundle"},
        "litert": {"bundle"},
        "myriad": {"bundle"},
        "tensorrt": {"bundle"},
        "inference": {"bundle", "openvino", "wholes"},
    },
    "models": {
        "layers": set(),
        "families": {"layers"},
        "students": {"families", "layers", "outside"},
        "outside": set(),
        "vlm": {"families"},
    },
    "compress": {"distill": set(), "prune": {"distill"}, "replace": {"prune"}, "quantize": set()},
    "export": {"onnx": set(), "targets": {"onnx"}},
    "devices": {
        "onboard": set(),
        "profiles": {"onboard"},
        "predict": {"onboard", "profiles"},
        "measure": {"onboard"},
        "mission": {"measure", "predict", "profiles"},
        "remote": {"measure", "onboard", "predict", "profiles"},
        "table": {"measure", "mission", "predict", "profiles", "remote"},
    },
    "reports": {"cards": set()},
    "rsedge": {
        "recipe": set(),
        "cache": set(),
        "results": {"cache", "recipe"},
        "tasks": {"cache", "recipe", "results"},
        "stages": {"cache", "recipe", "results", "tasks"},
        "tracking": {"cache", "recipe"},
        "pipeline": {"cache", "recipe", "results", "tasks", "stages", "tracking"},
        "search": {"cache", "recipe", "results", "tasks", "stages", "pipeline"},
        "archive": set(),
        "serving": set(),
        "packing": {"cache"},
        "cli": {"cache", "recipe", "results", "tasks", "stages", "pipeline", "search", "archive", "serving", "packing"},
    },
}
# What must never be needed on board, not even inside a function.
GROUND_ONLY = {"torch", "torchvision", "timm", "nncf", "segmentation_models_pytorch", "torch_pruning", "torchgeo"}
# The one reader in a room that flies which is for the ground: loaded when a recipe names a survey data set, never on board.
GROUND_READERS = {"data/sets/torchgeo.py"}


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@cache
def modules() -> dict[str, Path]:
    """All modules of ours, by the names they are imported under."""
    found = {}
    for room in ("rsedge", *ARROWS):
        for path in sources(room):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts if room == "rsedge" else ("rsedge", *parts))
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def base_of(node: ast.ImportFrom, package: str) -> str:
    """``a.b`` of ``from a.b import c``, in full."""
    above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
    return ".".join(filter(None, [*above, node.module]))


def named(tree: ast.AST, package: str, known: Mapping[str, bool]) -> Iterator[str]:
    """Modules that a module of ``package`` names anywhere in it: imports, and tables of modules that are opened late.

    ``known``: modules of ours, and whether each is a package.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = base_of(node, package)
            full = [f"{base}.{alias.name}" for alias in node.names]
            # ``from package import module`` is of the module, ``from package import thing`` of the package.
            yield from (one if one in known or base.partition(".")[0] != "rsedge" else base for one in full)
        elif isinstance(node, ast.Call) and names_in(node.func) & {"import_module", "__import__"}:
            yield from (str(one.value) for one in node.args[:1] if isinstance(one, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            module = node.value.partition(":")[0]
            if not known.get(module, True):  # names of packages are those of groups of entry points too
                yield module


def needed(tree: ast.AST, name: str, known: Mapping[str, bool]) -> set[str]:
    """Modules of ours that one names, and the packages around these, which Python runs first, but for those it lies in itself.

    Names that are computed do not count: what opens any module of a folder (families) knows none of them.
    """
    found = {one for one in named(tree, name if known[name] else name.rpartition(".")[0], known) if one in known}
    around = {".".join(parts[:n]) for parts in (one.split(".") for one in found) for n in range(1, len(parts))}
    return (found | {one for one in around if not f"{name}.".startswith(f"{one}.")}) - {name}


def circle(needs: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """Modules that stand in circles, or between two, with what each needs of the others; nothing where there is none."""
    left = dict(needs)
    while True:
        used = set().union(*left.values()) if left else set()
        ends = {name for name, found in left.items() if name not in used or not found & set(left)}
        if not ends:
            return {name: sorted(found & set(left)) for name, found in left.items()}
        left = {name: found for name, found in left.items() if name not in ends}


@cache
def needs() -> dict[str, set[str]]:
    known = {name: path.name == "__init__.py" for name, path in modules().items()}
    return {name: needed(parsed(path), name, known) for name, path in modules().items()}


def below(path: Path, package: str) -> set[str]:
    """What a file needs that lies in a package: modules and packages directly in it, by name."""
    name = next(one for one, where in modules().items() if where == path)
    return {one.split(".")[package.count(".") + 1] for one in needs()[name] if one.startswith(f"{package}.")}


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


def test_every_room_has_its_arrows_and_every_folder_is_a_package() -> None:
    rooms = {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"rsedge", "tests", "recipes"}
    assert rooms == set(ARROWS)
    without = {
        p.parent for room in ("rsedge", *ARROWS) for p in sources(room) if not (p.parent / "__init__.py").is_file()
    }
    assert not without, "the wheel would lack them"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions and for types alone count too, and so do modules that are opened by their names."""
    assert not circle(needs())


@pytest.mark.parametrize(
    "sources",
    [
        {"a.x": "import rsedge.a.y", "a.y": "def f():\n    from rsedge.a import x"},
        {"a.x": "if TYPE_CHECKING:\n    from rsedge.a.y import Thing", "a.y": "from rsedge.a.x import thing"},
        {"a.x": "from . import y", "a.y": "from ..a import x"},
        {"a.x": "from ..b import y", "b.y": "import_module('rsedge.a.x')", "b": ""},
        {"a.x": "TABLE = {'one': 'rsedge.b.y:ONE'}", "b.y": "from rsedge.a.x import TABLE", "b": ""},
        {"a": "from rsedge.b.y import thing", "b.y": "import rsedge.a.x", "b": "", "a.x": ""},
        {"a": "from rsedge.a.x import thing", "a.x": "import rsedge.a.y\nfrom rsedge.a import thing", "a.y": ""},
        {
            "": "if TYPE_CHECKING:\n    import rsedge.a.x",
            "a.x": "from rsedge import __version__\nimport rsedge.a.y",
            "a.y": "",
        },
    ],
    ids=["late", "types", "relative", "by name", "table", "package around", "thing of its package", "front"],
)
def test_a_circle_would_be_found(sources: dict[str, str]) -> None:
    texts = {f"rsedge.{name}".removesuffix("."): text for name, text in {"": "", "a": "", **sources}.items()}
    known = {name: name in ("rsedge", "rsedge.a", "rsedge.b") for name in texts}
    assert circle({name: needed(ast.parse(text), name, known) for name, text in texts.items()})


@pytest.mark.parametrize(
    "sources",
    [
        {"a": "from rsedge.a.x import thing", "a.x": "import rsedge.a.y", "a.y": ""},
        {"a.x": "from rsedge.b import y", "b": "", "b.y": "GROUP = 'rsedge.a'"},
    ],
    ids=["package of modules", "group"],
)
def test_no_circle_is_made_up(sources: dict[str, str]) -> None:
    texts = {f"rsedge.{name}".removesuffix("."): text for name, text in {"": "", "a": "", **sources}.items()}
    known = {name: name in ("rsedge", "rsedge.a", "rsedge.b") for name in texts}
    assert not circle({name: needed(ast.parse(text), name, known) for name, text in texts.items()})


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


def compares(tree: ast.AST, attribute: str) -> Iterator[int]:
    """Lines that compare an attribute of something, or match it."""
    for node in ast.walk(tree):
        sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        sides += [node.subject] if isinstance(node, ast.Match) else []
        if any(isinstance(side, ast.Attribute) and side.attr == attribute for side in sides):
            yield getattr(node, "lineno", 0)


@pytest.mark.parametrize("inside", ["stages", "pipeline", "results"])
def test_stages_know_tasks_by_their_contract_alone(inside: str) -> None:
    tasks = sources("rsedge/tasks")
    of_tasks = classes_in(tasks)
    assert {"Task", "SceneTask", "BoxTask", "SampleHeldOut"} <= of_tasks
    contract = classes_in([path for path in tasks if path.stem in TASK_DOORS])
    wrong = []
    for path in sources(f"rsedge/{inside}"):
        tree = parsed(path)
        wrong += [f"{path} imports {name}" for name in below(path, "rsedge.tasks") - TASK_DOORS]
        wrong += [f"{path} names {name}" for name in names_in(tree) & (of_tasks - contract)]
        wrong += [f"{path}:{line} asks of what class a task is" for line in forks_on(tree, of_tasks)]
    assert not wrong


@pytest.mark.parametrize("inside", ["stages", "pipeline", "results"])
def test_stages_ask_what_answers_for_a_network_and_what_outputs_are(inside: str) -> None:
    networks = classes_in([ROOT / "models/black_box.py", ROOT / "models/teachers.py"])
    assert networks == {"BlackBox", "Teacher"}
    wrong = []
    for path in sources(f"rsedge/{inside}"):
        wrong += [f"{path}:{line} asks of what class a network is" for line in forks_on(parsed(path), networks)]
        wrong += [f"{path}:{line} compares the kind of output" for line in compares(parsed(path), "output")]
    assert not wrong


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("ctx.task.output == 'tokens'", True),
        ("if 'map' != task.output: pass", True),
        ("ctx.task.output in ('map', 'image')", True),
        ("match task.output:\n    case 'map': pass", True),
        ("Deployable(net, ctx.spec, ctx.task.output)", False),
        ("ctx.task.takes_many and output == 'x'", False),
    ],
)
def test_a_comparison_of_outputs_would_be_found(code: str, found: bool) -> None:
    assert bool(list(compares(ast.parse(code), "output"))) is found


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


def told_apart(tree: ast.AST, names: Collection[str]) -> Iterator[int]:
    """Lines that compare something with one of ``names``, alone or among others, or match it against one."""
    for node in ast.walk(tree):
        sides: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        sides += [one for side in sides if isinstance(side, ast.Tuple | ast.List | ast.Set) for one in side.elts]
        if any(isinstance(one, ast.Constant) and one.value in names for one in sides):
            yield getattr(node, "lineno", 0)


@pytest.mark.parametrize("room", ["rsedge", *ARROWS])
def test_nobody_asks_which_runtime_it_is_but_the_runtime_itself(room: str) -> None:
    names = set(backend_names())
    own = {ROOT / "runtimes" / name for name in names}
    others = [path for path in sources(room) if own.isdisjoint(path.parents)]
    assert not [f"{path.relative_to(ROOT)}:{line}" for path in others for line in told_apart(parsed(path), names)]


@pytest.mark.parametrize(
    "code",
    [
        "t.runtime == 'tensorrt'",
        "'litert' != name",
        "name in ('openvino', None)",
        "match name:\n    case 'myriad': pass",
    ],
)
def test_a_fork_on_a_runtime_would_be_found(code: str) -> None:
    assert list(told_apart(ast.parse(code), set(backend_names())))


@pytest.mark.parametrize("room", ["data", "runtimes"])
def test_what_flies_names_no_ground_module(room: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(room)
        if str(path.relative_to(ROOT)) not in GROUND_READERS
        for name in named(parsed(path), f"rsedge.{room}", {})
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
