"""The runner's commands; ``rsedge bench --on`` calls them on the device, one JSON object on stdout each."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rsedge.data.errors import RsedgeError
from rsedge.devices.onboard import keeper, suite
from rsedge.devices.onboard.job import peak_memory, run, write_json, wrong_files
from rsedge.devices.onboard.probe import RUNTIMES, probe


def parser() -> argparse.ArgumentParser:
    """The runner's arguments."""
    top = argparse.ArgumentParser(prog="runner.pyz", description="Measures an rsedge bundle on this device.")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    one = commands.add_parser("probe", help="what this device is and has")
    one.add_argument("folder", type=Path)
    one.add_argument("--runtime", choices=RUNTIMES, required=True)
    one = commands.add_parser("keep", help="own a job's folder: run its job, take it away in the end")
    one.add_argument("folder", type=Path)
    one.add_argument("--lease", type=float, required=True, metavar="SECONDS")
    one = commands.add_parser("accept", help="check what was sent; give it its name when it is whole")
    one.add_argument("folder", type=Path)
    one = commands.add_parser("run", help="run the job of a folder")
    one.add_argument("folder", type=Path)
    one = commands.add_parser("memory", help="peak memory of a fresh process")
    one.add_argument("bundle", type=Path)
    one.add_argument("job", type=json.loads)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit code; an error goes to stderr in one line."""
    given = parser().parse_args(arguments)
    try:
        answer = _answer(given)
    except RsedgeError as error:
        if given.command == "run":
            write_json(given.folder / keeper.ERROR, {"message": str(error), "exit_code": error.exit_code})
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(answer))
    return 0


def _answer(given: argparse.Namespace) -> dict[str, Any]:
    if given.command == "probe":
        os.environ.update(keeper.homed(given.folder))  # importing a runtime may write into the home folder
        return probe(given.folder, given.runtime)
    if given.command == "keep":
        keeper.start(given.folder.resolve(), given.lease)
        return {"started": True}
    if given.command == "accept":
        return _accept(given.folder)
    if given.command == "memory":
        return {"peak_rss_bytes": peak_memory(given.bundle, given.job)}
    return _run(given.folder)


def _accept(folder: Path) -> dict[str, Any]:
    upload = folder / keeper.UPLOAD
    if (folder / keeper.BUNDLE).exists():
        return {"wrong": []}
    wrong = wrong_files(upload)
    for name in wrong:
        (upload / name).unlink(missing_ok=True)
    if not wrong:
        upload.rename(folder / keeper.BUNDLE)
    return {"wrong": wrong}


def _run(folder: Path) -> dict[str, Any]:
    began = time.time()

    def notice(step: str, share: float) -> None:
        write_json(folder / keeper.PROGRESS, {"step": step, "share": share})

    job = json.loads((folder / keeper.JOB).read_text())
    work = suite.run if "suite" in job else run
    result = work(folder / keeper.BUNDLE, job, notice)
    write_json(folder / keeper.RESULT, {**result, "began_wall_clock_s": began, "ended_wall_clock_s": time.time()})
    return {"done": True}


if __name__ == "__main__":
    sys.exit(main())
