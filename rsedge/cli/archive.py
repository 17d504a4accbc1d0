"""``rsedge archive``: a bundle over many scenes by several processes; needs no torch."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rsedge.cli.common import band_names, hint_named, print_json, unwrapped
from rsedge.cli.heed import refuse_unheeded, refuse_without
from rsedge.cli.options import (
    AlignTiles,
    AnyGsd,
    Bands,
    BundlePath,
    Device,
    Heads,
    HintOption,
    Json,
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
from rsedge.data.errors import RequestError

LINE_EVERY_S = 30.0


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("archive", help=unwrapped(archive.__doc__ or ""))(archive)


def archive(
    context: typer.Context,
    bundle: BundlePath,
    catalog: Annotated[
        list[str],
        typer.Argument(metavar="CATALOG...", help="Files, folders, patterns, lists of paths (.txt), STAC items and collections."),
    ],
    output_dir: Annotated[Path, typer.Option("--output-dir", metavar="DIR", help="Folder of the outputs; made if need be.")],
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one per core if not given.")] = None,
    tries: Annotated[int, typer.Option(min=1, help="How often a scene that fails is tried.")] = 3,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try scenes anew that were left alone.")] = False,
    plan: Annotated[int | None, typer.Option(min=1, metavar="SCENES", help="Predict the hours of so many like these.")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Of a machine like this per hour, for --plan.")] = None,
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
    as_json: Json = False,
) -> None:  # fmt: skip
    """Map an archive: several processes claim scenes one after the other, each is mapped once, and the same command goes on.

    Every process loads the model once. What is done is known by the record beside its output; a process that is killed is begun
    again, and so is its scene. A scene that fails is tried --tries times, then left alone and listed in DIR/failed.txt with the
    reason; once its files have changed, or with --retry-failed, it is tried anew. Several commands, of several
    machines too where they share a disk with locks, can work into one folder.

    Beside each map lies its STAC item. With --heads an encoder runs once a scene for all of them, as with `rsedge infer`.

    Exit code 5 where scenes failed. In Python, for Dask, Spark and the like, one scene is one
    call: rsedge.archive.scene.map_scene.

    Examples:

        rsedge archive bundle.zip catalog.json --output-dir maps --workers 4

        rsedge archive bundle.zip scenes/ --output-dir maps --plan 1000000 --price 0.40

        rsedge archive bundle.zip scenes/ --output-dir maps --retry-failed
    """
    from rsedge.archive.driver import Sum, forget, run
    from rsedge.archive.worker import Job
    from rsedge.flight import load
    from rsedge.runtimes.cores import cpu_count

    if plan is None:
        refuse_without(context, ("price",), "--plan")
    crew = workers or cpu_count()
    named = band_names(heads)
    given = {
        "bands": band_names(bands), "sensor": sensor, "scale": scale, "offset": offset, "nodata": nodata,
        "nan_nodata": nan_nodata, "any_gsd": any_gsd, "overlap": overlap, "align_tiles": align_tiles, "heads": named,
    }  # fmt: skip
    opening: dict[str, Any] = {
        "key": key, "threads": threads or max(1, cpu_count() // crew), "device": device, "hint": hint_named(hint),
        "self_test": self_test,
    }  # fmt: skip
    with load(bundle, **opening) as loaded:
        refuse_unheeded(context, loaded.opened, device=device)
        typer.echo(str(loaded.opened.signature), err=True)
        found = loaded.scenes(catalog, output_dir, heads=named or ())
    options = {name: value for name, value in given.items() if value is not None and value is not False}
    job = Job(bundle, tuple(found), output_dir, opening, options, tries)
    crew = min(crew, len(found))
    if retry_failed:
        forget(job)
    said = time.monotonic()

    def on_record(record: dict[str, Any], so_far: Sum) -> None:
        nonlocal said
        if record["status"] == "failed":
            then = "tried again later" if record["retry"] else f"left alone after {record['tries']} tries"
            typer.echo(f"{record['scene']}: failed, {then}: {record['error']}", err=True)
        now = time.monotonic()
        if not as_json and now - said > LINE_EVERY_S:
            said = now
            typer.echo(_line(so_far, len(found), crew), err=True)

    summary = run(job, crew, on_record)
    record = summary.record() | {"workers": crew}
    if plan is not None:
        record["plan"] = {"scenes": plan, **_planned(summary.seconds, crew, plan, price)}
    if as_json:
        print_json(record)
    else:
        _say(record, output_dir)
    if record["exit_code"]:
        raise typer.Exit(record["exit_code"])


def _planned(seconds: Sequence[float], crew: int, scenes: int, price: float | None) -> dict[str, Any]:
    """A prediction, or why there is none: what was mapped stays either way."""
    from rsedge.archive.plan import plan

    try:
        found = plan(seconds, crew, scenes, price)
    except RequestError as error:
        return {"words": str(error)}
    return {"provenance": "predicted", **dataclasses.asdict(found), "words": found.words}


def _say(record: dict[str, Any], folder: Path) -> None:
    rate = record["scenes_per_hour"]
    pace = "" if rate is None else f", {rate:,.0f} scenes an hour by {record['workers']} workers"
    typer.echo(
        f"{record['done']} done, {record['skipped']} skipped, {record['failed']} failed; {record['wall_s']:.1f} s{pace}"
    )
    if record["failed"]:
        typer.echo(f"what failed, and why: {folder / 'failed.txt'}", err=True)
    if "plan" in record:
        typer.echo(record["plan"]["words"])


def _line(so_far: Any, count: int, crew: int) -> str:
    """How far it is, and about how long it takes."""
    settled = so_far.settled
    left = so_far.wall_s / max(1, settled) * (count - settled)
    return f"{settled} of {count} scenes, {crew} workers, about {left:.0f} s left"
