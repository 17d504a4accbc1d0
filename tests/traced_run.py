"""``python traced_run.py TRACE ...``: the command line, which writes what each stage ran and read, and what its key knows of.

TRACE is a folder: of each stage that runs, ``STAGE.json`` lists the source files of the functions that were called
(``ran``), those that its key hashes (``hashed``), and the names of the files that it opened to read (``opened``).
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rsedge.cache.code_closure import closure
from rsedge.cache.stage import Found, StageContext, StageResult, Stages
from rsedge.cli.main import run_app

_stage = Stages.stage
_opened: list[str] = []


def _heard(event: str, args: tuple[Any, ...]) -> None:
    # Not those that write, nor file descriptors (without a mode), by which what was written is synced.
    if event == "open" and "r" in str(args[1] or "") and isinstance(args[0], str | Path):
        _opened.append(str(args[0]))


def _traced_stage(
    self: Stages,
    record: type[Found],
    body: Callable[[StageContext], Found],
    settings: dict[str, Any],
    code: Sequence[str],
    *more: Any,
) -> StageResult[Found]:
    def traced(context: StageContext) -> Found:
        ran: set[str] = set()

        def note(frame: FrameType, event: str, arg: Any) -> None:
            ran.add(frame.f_code.co_filename)

        _opened.clear()
        # Told of calls alone: nothing of what happens inside them.
        threading.settrace(note)
        sys.settrace(note)
        try:
            return body(context)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            hashed = [str(source.path) for source in closure(tuple(code))[0].values()]
            content = {"ran": sorted(ran), "hashed": hashed, "opened": list(_opened)}
            (Path(sys.argv[1]) / f"{record.stage}.json").write_text(json.dumps(content))

    return _stage(self, record, traced, settings, code, *more)


if __name__ == "__main__":
    sys.addaudithook(_heard)
    Stages.stage = _traced_stage  # type: ignore[method-assign,assignment]
    sys.exit(run_app(sys.argv[2:]))
