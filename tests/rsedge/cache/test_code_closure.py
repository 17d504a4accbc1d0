"""Stage keys follow the code that a stage can reach: rules on a small package, then the stages of a real run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from rsedge.cache import code_closure
from rsedge.cache.code_closure import Source, closure, code_hash
from rsedge.cache.run_folder import RunFolder
from rsedge.cache.stage import Stages, StageValue

DISTILL = "rsedge.stages.distill"


class Nothing(StageValue):
    stage: ClassVar[str] = "distill"


@pytest.fixture
def fresh() -> Iterator[Callable[[], None]]:
    """Forgets what is known of the source, now and afterwards."""
    known = (code_closure.code_hash, code_closure.find, code_closure.reached)

    def forget() -> None:
        for function in known:
            function.cache_clear()

    forget()
    yield forget
    forget()


Package = Callable[[dict[str, str]], Path]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: Callable[[], None]) -> Package:
    """Writes a package ``probe_package`` of the given files, which stands for rsedge."""
    monkeypatch.setattr(code_closure, "PACKAGE", "probe_package")
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(files: dict[str, str]) -> Path:
        root = tmp_path / "probe_package"
        for name, text in {"__init__.py": "", **files}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        sys.modules.pop(root.name, None)
        fresh()
        return root

    return write


def names(module: str) -> set[str]:
    modules, files = closure((f"probe_package.{module}",))
    return {name.removeprefix("probe_package.") for name in [*modules, *files]} - {"probe_package", module}


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        ("import probe_package.a", {"a", "b"}),
        ("from probe_package import a", {"a", "b"}),
        ("from probe_package.a import x", {"a", "b"}),
        ("from . import a", {"a", "b"}),
        ("from .a import x", {"a", "b"}),
        ("def f():\n    from .a import x", {"a", "b"}),
        ("def f():\n    from probe_package.inner import x", {"inner"}),
        ("import importlib\nimportlib.import_module('probe_package.b')", {"b"}),
        ("from .registry import load", {"registry", "registry.one", "registry.two", "b"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import probe_package.a", set()),
        ("from typing import TYPE_CHECKING\nif not TYPE_CHECKING:\n    from . import b", {"b"}),
        ("import typing\nif typing.TYPE_CHECKING:\n    from . import a\nelse:\n    from . import b", {"b"}),
        ("from .tables import rows", {"tables", "probe_package/rows/x.yaml", "probe_package/rows/y.yaml"}),
        ("from .beside import text", {"beside", "probe_package/words.json"}),
        ("import json", set()),
    ],
)
def test_what_a_module_reaches(package: Package, text: str, reached: set[str]) -> None:
    package(
        {
            "root.py": text,
            "a.py": "from . import b\nx = 1\n",
            "b.py": "",
            "inner/__init__.py": "x = 1\n",
            "registry/__init__.py": "from importlib import import_module\n"
            "def load(name):\n    return import_module(f'{__name__}.{name}')\n",
            "registry/one.py": "",
            "registry/two.py": "from probe_package import b\n",
            "tables.py": "from importlib import resources\nrows = resources.files('probe_package') / 'rows'\n",
            "rows/x.yaml": "",
            "rows/y.yaml": "",
            "beside.py": "from pathlib import Path\ntext = Path(__file__).parent / 'words.json'\n",
            "words.json": "",
        }
    )
    assert names("root") == reached


def test_comments_and_docstrings_change_no_key(package: Package, fresh: Callable[[], None]) -> None:
    root = package({"root.py": "from . import a\n", "a.py": "def f():\n    return 1\n"})
    before = code_hash(("probe_package.root",))
    (root / "a.py").write_text('"""Says."""\n\n\ndef f():\n    """One."""\n    return 1  # one\n')
    fresh()
    assert code_hash(("probe_package.root",)) == before
    (root / "a.py").write_text("def f():\n    return 2\n")
    fresh()
    assert code_hash(("probe_package.root",)) != before


def test_a_changed_table_changes_the_key(package: Package, fresh: Callable[[], None]) -> None:
    text = "from importlib import resources\nrows = resources.files('probe_package').joinpath('rows.yaml')\n"
    root = package({"root.py": text, "rows.yaml": "a: 1\n"})
    before = code_hash(("probe_package.root",))
    (root / "rows.yaml").write_text("a: 2\n")
    fresh()
    assert code_hash(("probe_package.root",)) != before


def test_a_module_that_is_not_there_is_said() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"rsedge\.nothing"):
        code_hash(("rsedge.nothing",))


@pytest.fixture
def hashed_anew() -> Iterator[Callable[[], None]]:
    """Lets keys be made anew, now and afterwards; what is known of each file stays, it is not read again."""
    yield code_closure.code_hash.cache_clear
    code_closure.code_hash.cache_clear()


def changed(monkeypatch: pytest.MonkeyPatch, folder: Path, module: str, text: str) -> None:
    """Lets a module of rsedge have some more text."""
    real = code_closure.find
    source = real(module)
    assert source is not None
    copy = folder / source.path.name
    copy.write_text(source.path.read_text(encoding="utf-8") + text)
    monkeypatch.setattr(code_closure, "find", lambda name: Source(name, copy) if name == module else real(name))


@pytest.mark.parametrize(
    ("stage", "module", "text", "reruns"),
    [
        (DISTILL, "rsedge.compress.distill.box_loss", "\nLATER = 1\n", True),
        (DISTILL, "rsedge.compress.prune.blocks", "\nLATER = 1\n", True),
        (DISTILL, "rsedge.models.families.vit", "\nLATER = 1\n", True),
        (DISTILL, "rsedge.models.students.slim_unet", "\nLATER = 1\n", True),
        (DISTILL, "rsedge.compress.distill.box_loss", "\n# later\n", False),
        (DISTILL, "rsedge.reports.html", "\nLATER = 1\n", False),
        (DISTILL, "rsedge.stages.report", "\nLATER = 1\n", False),
        (DISTILL, "rsedge.cli.main", "\nLATER = 1\n", False),
    ],
)
def test_a_stage_runs_again_where_code_that_it_reaches_has_changed(
    monkeypatch: pytest.MonkeyPatch,
    hashed_anew: Callable[[], None],
    tmp_path: Path,
    stage: str,
    module: str,
    text: str,
    reruns: bool,
) -> None:
    def ran() -> bool:
        return not Stages(RunFolder(tmp_path / "run")).stage(Nothing, lambda context: Nothing(), {}, [stage]).reused

    assert ran()
    assert not ran()
    changed(monkeypatch, tmp_path, module, text)
    hashed_anew()
    assert ran() is reruns
