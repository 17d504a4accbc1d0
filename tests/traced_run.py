"""``python traced_run.py TRACE ...``: the command line, which writes what each stage ran and read, and what its key knows of.

TRACE is a folder, or ``-``, where nothing is to be written: of each stage that runs, ``STAGE.json`` lists the source files of
rsedge of which a function was called (``ran``), those that its key hashes (``hashed``), and the names of the files that it opened
to read (``opened``).

The functions say so themselves (a statement more in each of them, put in when a module is imported): a tracer, which is
told of every call in every library, takes longer than the run.
"""

from __future__ import annotations

import ast
import builtins
import json
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

_ran: set[str] = set()
_opened: list[str] = []
_read_code = SourceFileLoader.get_code
TEACHER, TILE = "ukis-csmask-4b-l2a", 128


class _Telling(ast.NodeTransformer):
    """Lets the module and every function and lambda in it tell, when it runs, which file it stands in."""

    def __init__(self, path: str) -> None:
        self._path = path

    def visit(self, node: ast.AST) -> Any:
        self.generic_visit(node)
        if isinstance(node, ast.Lambda):
            both = ast.Tuple([self._call(), node.body], ast.Load())
            node.body = ast.Subscript(both, ast.Constant(1), ast.Load())
        elif isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body.insert(_first(node.body), ast.Expr(self._call()))
        return node

    def _call(self) -> ast.Call:
        return ast.Call(ast.Name("__ran__", ast.Load()), [ast.Constant(self._path)], [])


def _first(body: list[ast.stmt]) -> int:
    """Where the first statement may stand: behind the docstring and what is imported from ``__future__``."""
    text = bool(body) and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    return text + sum(isinstance(s, ast.ImportFrom) and s.module == "__future__" for s in body)


def _telling_code(self: SourceFileLoader, name: str) -> CodeType | None:
    if name.partition(".")[0] != "rsedge":
        return _read_code(self, name)
    tree = _Telling(self.path).visit(ast.parse(self.get_data(self.path)))
    return compile(ast.fix_missing_locations(tree), self.path, "exec")


def _heard(event: str, args: tuple[Any, ...]) -> None:
    # Not those that write, nor file descriptors (without a mode), by which what was written is synced.
    if event == "open" and "r" in str(args[1] or "") and isinstance(args[0], str | Path):
        _opened.append(str(args[0]))


def rows_of_small_tiles() -> Any:
    """The table of teachers, where the one of this run has tiles of a quarter of the pixels; all else of it is as it is."""
    from rsedge.models import zoo

    return tuple(
        row.model_copy(update={"input": row.input.model_copy(update={"tile": TILE})})
        if row.name == TEACHER and row.input is not None
        else row
        for row in zoo._read()
    )


def main(folder: str, arguments: list[str]) -> int:
    """The command line with small tiles and short measurements, its stages watched."""
    if folder != "-":
        watch(Path(folder))
    from rsedge.cli.main import run_app
    from rsedge.models import zoo

    rows = rows_of_small_tiles()
    zoo._read = lambda: rows  # type: ignore[assignment]
    measure_shortly()
    return run_app(arguments)


def measure_shortly() -> None:
    """Latencies for a tenth of their time: no test asks how long anything takes."""
    from rsedge.stages import latency, verify

    verify.MEASURE_SECONDS = 0.2
    latency.SECONDS, latency.MORE_SECONDS = 0.1, 0.2


def watch(folder: Path) -> None:
    """Lets each stage write what it ran and read."""
    builtins.__ran__ = _ran.add  # type: ignore[attr-defined]
    SourceFileLoader.get_code = _telling_code  # type: ignore[method-assign]
    from rsedge.cache.code_closure import closure
    from rsedge.cache.stage import Found, StageContext, StageResult, Stages

    run_stage = Stages.stage

    def watched_stage(
        self: Stages,
        record: type[Found],
        body: Callable[[StageContext], Found],
        settings: dict[str, Any],
        code: Sequence[str],
        *more: Any,
    ) -> StageResult[Found]:
        def watched(context: StageContext) -> Found:
            _opened.clear()
            _ran.clear()
            try:
                return body(context)
            finally:
                content = {"ran": sorted(_ran), "opened": list(_opened)}
                hashed = [str(source.path) for source in closure(tuple(code))[0].values()]
                (folder / f"{record.stage}.json").write_text(json.dumps(content | {"hashed": hashed}))

        return run_stage(self, record, watched, settings, code, *more)

    Stages.stage = watched_stage  # type: ignore[method-assign,assignment]
    sys.addaudithook(_heard)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
