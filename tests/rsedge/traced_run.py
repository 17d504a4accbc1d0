"""``python traced_run.py TRACE ...``: the command line, which writes into TRACE what source each stage ran.

TRACE is JSON: stage name -> the files whose functions were called while it ran; a later run adds to it.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import rsedge.stage
from rsedge.cli import main
from rsedge.stage import StageResult

_run_stage = rsedge.stage._execute


def _traced(name: str, *args: Any, **options: Any) -> StageResult:
    files: set[str] = set()

    def note(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        return _run_stage(name, *args, **options)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        trace = Path(sys.argv[1])
        known = json.loads(trace.read_text()) if trace.exists() else {}
        trace.write_text(json.dumps(known | {name: sorted(files | set(known.get(name, ())))}))


if __name__ == "__main__":
    rsedge.stage._execute = _traced
    arguments = sys.argv[2:]
    sys.exit(main(arguments) if main.__code__.co_argcount else main())
