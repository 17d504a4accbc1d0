"""``python -m tests.faults.tiny_run FOLDER``: stages with the machinery of real ones and no network in them.

One stage trains by checkpoints that outlive a kill, one writes a folder of files, the last brings a bundle under its final name.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import numpy as np

from rsedge.cache.run_folder import RunFolder, open_run_folder
from rsedge.cache.stage import StageContext, Stages, StageValue
from rsedge.cli import main as cli
from rsedge.data.files import atomic_path, read_json, replace_folder, write_bytes, write_json
from rsedge.data.temporary import TemporaryFolder

STEPS, SIZE = 30, 200_000


class Trained(StageValue):
    stage = "distill"
    digest: str


class Exported(StageValue):
    stage = "export"
    files: int


class Bundled(StageValue):
    stage = "bundle"
    name: str


def train(context: StageContext) -> Trained:
    """Steps that depend on all before; goes on behind the last checkpoint."""
    checkpoint = context.resume / "state.json"
    state = read_json(checkpoint) if checkpoint.exists() else {"step": 0, "digest": ""}
    for step in range(state["step"], STEPS):
        digest = hashlib.sha256(f"{state['digest']}{step}".encode())
        for _ in range(20):
            digest.update(bytes(SIZE))
        state = {"step": step + 1, "digest": digest.hexdigest()}
        write_json(checkpoint, state)
    write_bytes(context.folder / "weights", state["digest"].encode())
    return Trained(digest=state["digest"])


def export(context: StageContext) -> Exported:
    """Files of some size, by way of temporary folders."""
    for number in range(10):
        with TemporaryFolder(context.folder) as folder, atomic_path(context.folder / f"model{number}") as path:
            (folder / "scrap").write_bytes(bytes(SIZE))
            path.write_bytes(np.random.default_rng(number).bytes(SIZE))
    return Exported(files=10)


def bundle(context: StageContext) -> Bundled:
    """One file that says that the folder is whole, and one of content."""
    write_bytes(context.folder / "whole", b"yes")
    return Bundled(name="whole")


def run(folder: Path) -> int:
    with open_run_folder(folder) as opened:
        write_bytes(opened.resolved_recipe, b"name: tiny\n")
        stages = Stages(opened)
        stages.stage(Trained, train, {}, ["rsedge.cache.stage"])
        stages.stage(Exported, export, {}, ["rsedge.cache.stage"], after=["distill"])
        made = stages.stage(Bundled, bundle, {}, ["rsedge.cache.stage"], after=["export"])
        _publish(made.folder, opened)
    return 0


def _publish(made: Path, opened: RunFolder) -> None:
    opened.bundles.mkdir(exist_ok=True)
    for _ in range(10):  # again and again, so that a kill meets the exchange of names
        with TemporaryFolder(opened.bundles) as folder:
            (folder / "new").mkdir()
            (folder / "new" / "whole").write_bytes((made / "whole").read_bytes())
            (folder / "new" / "content").write_bytes(bytes(SIZE))
            replace_folder(folder / "new", opened.bundles / "target")


if __name__ == "__main__":
    cli._run = lambda arguments: run(Path(os.fsdecode(arguments[-1])))
    sys.exit(cli.run_app(["run", *sys.argv[1:]]))
