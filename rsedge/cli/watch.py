"""``rsedge watch``: scenes that come into a folder are mapped as they come; needs no torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from rsedge.cli.common import band_names, hint_named, unwrapped
from rsedge.cli.heed import refuse_unheeded
from rsedge.cli.options import (
    AlignTiles,
    AnyGsd,
    Bands,
    BundlePath,
    Device,
    Heads,
    HintOption,
    Key,
    NanNodata,
    Nodata,
    Offset,
    Overlap,
    Scale,
    SelfTest,
    Sensor,
    Threads,
)
from rsedge.data.errors import PartlyDone, RequestError

NAP_S = 0.2


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("watch", help=unwrapped(watch.__doc__ or ""))(watch)


def watch(
    context: typer.Context,
    bundle: BundlePath,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Into which scenes come.")],
    output_dir: Annotated[Path, typer.Option("--output-dir", metavar="DIR", help="Folder of the outputs; made if need be.")],
    every: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="Between two looks at the folder.")] = 2.0,
    settle: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="A file is complete once it has not changed for so long.")
    ] = 2.0,
    tries: Annotated[int, typer.Option(min=1, help="How often a scene that fails is tried.")] = 3,
    once: Annotated[bool, typer.Option("--once", help="End when nothing is left to do; exit code 5 where scenes failed.")] = False,
    heads: Heads = None,
    overlap: Overlap = None,
    align_tiles: AlignTiles = False,
    bands: Bands = None,
    sensor: Sensor = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    nan_nodata: NanNodata = False,
    any_gsd: AnyGsd = False,
    threads: Threads = None,
    device: Device = None,
    hint: HintOption = None,
    self_test: SelfTest = 100,
    key: Key = None,
) -> None:  # fmt: skip
    """Map scenes as they come into a folder, each once; the model is loaded once.

    A scene is taken when it is complete: unchanged for --settle seconds, and not called .part, .tmp or the like. What is done is
    known by the record beside its output, so a restart does nothing twice. One that fails is tried again after 30 s, 2 minutes and
    so on, --tries times in all, then left alone; DIR/NAME.failed.json says why, and a changed file is tried anew.

    SIGTERM or Ctrl-C end it at the next tile with exit code 0; the scene under way is done anew next time.

    Examples:

        rsedge watch bundle.zip incoming --output-dir masks

        rsedge watch bundle.zip incoming --output-dir masks --once
    """
    from rsedge.flight import load
    from rsedge.serving.watch import FolderWatch, Rules
    from rsedge.stopping import finishing

    if not folder.is_dir():
        raise RequestError(f"{folder}: there is no such folder to watch; make it first")
    named = band_names(heads)
    options = {
        "bands": band_names(bands), "sensor": sensor, "scale": scale, "offset": offset, "nodata": nodata,
        "nan_nodata": nan_nodata, "any_gsd": any_gsd, "overlap": overlap, "align_tiles": align_tiles, "heads": named,
    }  # fmt: skip
    failed: set[str] = set()

    def on_scene(record: dict[str, Any]) -> None:
        (failed.add if record["status"] == "failed" else failed.discard)(record["scene"])
        typer.echo(line(record))

    with (
        load(bundle, key, threads=threads, device=device, hint=hint_named(hint), self_test=self_test) as loaded,
        finishing() as ended,
    ):
        refuse_unheeded(context, loaded.opened, device=device)
        loaded.heads(named or ())
        loaded.tune_for_many(Path("scene.tif"))
        typer.echo(
            f"{loaded.opened.signature}\nwatching {folder} for {loaded.manifest.name} ({loaded.target})", err=True
        )
        given = {name: value for name, value in options.items() if value is not None and value is not False}
        watched = FolderWatch(loaded, folder, output_dir, Rules(settle, every, tries), given, on_scene)

        def step(done: int, total: int) -> None:
            if ended():
                raise _Ended

        try:
            while not ended():
                wait = watched.step(step)
                if once and wait and not watched.settling():
                    break
                _nap(wait, ended)
        except _Ended:
            pass
    if once and failed:
        raise typer.Exit(PartlyDone.exit_code)


class _Ended(Exception):
    """A signal asked for the end while a scene was under way."""


def line(record: dict[str, Any]) -> str:
    """What became of a scene, in one line."""
    if record["status"] == "waiting":
        return f"{record['scene']}: waiting: {record['error']}"
    if record["status"] != "failed":
        return f"{record['scene']}: {record['status']}: {record['output']}"
    then = "tried again later" if record["retry"] else f"left alone after {record['tries']} tries"
    return f"{record['scene']}: failed, {then}: {record['error']}"


def _nap(seconds: float, ended: Any) -> None:
    """Sleeps for so long, or until the end is asked for."""
    until = time.monotonic() + seconds
    while not ended() and (left := until - time.monotonic()) > 0:
        time.sleep(min(NAP_S, left))
