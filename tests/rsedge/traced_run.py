"""``python traced_run.py TRACE ...``: the command line, which writes what each stage ran and what its key knows of.

TRACE is a folder: of each stage that runs, ``STAGE.json`` lists the source files of the functions that were called
(``ran``) and those that its key hashes (``hashed``).
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rsedge.cli import run_app
from rsedge.code_closure import closure
from rsedge.stage import Found, StageContext, StageResult, Stages

_stage = Stages.stage


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
            if event == "call":
                ran.add(frame.f_code.co_filename)

        threading.setprofile(note)
        sys.setprofile(note)
        try:
            return body(context)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
            hashed = [str(source.path) for source in closure(tuple(code))[0].values()]
            content = {"ran": sorted(ran), "hashed": hashed}
            (Path(sys.argv[1]) / f"{record.stage}.json").write_text(json.dumps(content))

    return _stage(self, record, traced, settings, code, *more)


if __name__ == "__main__":
    Stages.stage = _traced_stage  # type: ignore[method-assign,assignment]
    sys.exit(run_app(sys.argv[2:]))
