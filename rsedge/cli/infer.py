"""``rsedge infer``: a bundle on a scene, on samples or a picture; needs no torch."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsedge.cli import verdict as cli_verdict
from rsedge.cli.common import band_names, hint_named, print_json, progress_bar, say_warning, scenes_bar
from rsedge.cli.heed import refuse_unheeded, refuse_without
from rsedge.cli.options import (
    After,
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
from rsedge.cli.tables import add, show, table
from rsedge.data.errors import GateFailed, RequestError
from rsedge.runtimes.inference.sources import sources
from rsedge.runtimes.inference.works.table import Work, taken, work_of

if TYPE_CHECKING:
    from rsedge.flight import Bundle


def infer(
    context: typer.Context,
    bundle: BundlePath,
    scenes: Annotated[
        list[str],
        typer.Argument(
            metavar="SCENE...",
            help="GeoTIFF; with --output-dir also several, folders, patterns, lists of paths (.txt), STAC on this disk.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write: a class map (255 = nodata) or finer image (GeoTIFF), or objects (.geojson, .csv).",
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            metavar="DIR",
            help="Folder for the outputs of all scenes, each with a record (.json) beside it.",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="SUFFIX", help="With --output-dir: what is written, e.g. csv for objects."),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="With --output-dir: do scenes anew that are done already, as their records say."),
    ] = False,
    probabilities: Annotated[
        Path | None,
        typer.Option(
            metavar="P.tif",
            help="Also write class probabilities (float32, one band per class); with --output-dir the folder for them.",
        ),
    ] = None,
    probability_type: Annotated[
        str,
        typer.Option(
            metavar="float32|uint8",
            help="Type of the probabilities; uint8 has scale tags and takes a quarter of the space.",
        ),
    ] = "float32",
    cog: Annotated[
        bool,
        typer.Option(
            "--cog", help="Write rasters as cloud-optimised GeoTIFFs, with overviews: a second pass over the file."
        ),
    ] = False,
    overlap: Overlap = None,
    align_tiles: AlignTiles = False,
    bands: Bands = None,
    sensor: Sensor = None,
    threads: Threads = None,
    key: Key = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    nan_nodata: NanNodata = False,
    any_gsd: AnyGsd = False,
    after: After = None,
    prompt: Annotated[str | None, typer.Option(help="Captions: ask this instead of the bundle's own question.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Points and boxes whose masks are wanted: .geojson, or .csv of pixels."),
    ] = None,
    score: Annotated[
        float | None, typer.Option(help="Detectors: certainty that an object needs; the bundle's own when not given.")
    ] = None,
    heads: Heads = None,
    filter: Annotated[
        Path | None,
        typer.Option(
            "--filter",
            metavar="BUNDLE",
            help="A smaller bundle that maps the scene first and says what need not be seen.",
        ),
    ] = None,
    filter_drops: Annotated[
        str | None,
        typer.Option(
            "--filter-drops", metavar="A,B", help="Its classes that need not be seen, e.g. cloud: nodata here."
        ),
    ] = None,
    filter_least: Annotated[
        float | None,
        typer.Option(
            "--filter-least", help="Share of a tile that must be left for it to be run; a twentieth when not given."
        ),
    ] = None,
    device: Device = None,
    hint: HintOption = None,
    self_test: SelfTest = 100,
    require_passed: Annotated[
        bool,
        typer.Option(
            "--require-passed",
            help="Refuse a bundle whose gates did not all pass, that has none, or that no known key has signed (exit 3).",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Map a scene of any size with a bundle, answer for samples, or caption a picture.

    Bands are matched by their descriptions in the file, in whatever order they stand. Integer scenes hold the model's
    digital numbers unless the file has scale/offset tags; float scenes hold physical values such as reflectance. What
    the scene does not declare is asked for, never guessed. The map keeps the scene's CRS and transform. Outputs appear whole,
    and replace an older file of the name; what is read, a bundle's files, links and devices are never written over.

    A bundle that gives one vector per input (local climate zones, crop series, embeddings) takes an .npz with an array
    'dn' instead and writes .npz or .csv; one for image chips also takes a scene and writes one pixel per chip. A bundle
    for change takes the later date, on the same grid, with --after. A detector writes GeoJSON, or a table of pixels.

    A bundle of several parts takes an .npz with the arrays that `rsedge inspect` names; of prompted masks also a scene with
    --prompts. Two towers rank the items of the .npz for every query; a sampler gives its picture.

    With --heads an encoder runs once, and what each head says is written beside its vectors, as OUTPUT.HEAD.tif (or .npz, .csv).

    With --filter a smaller bundle (clouds, open sea) maps the scene first. What it calls one of --filter-drops is nodata in the
    output, and tiles of which less than --filter-least is left are not run; the record says what that spared.

    With --output-dir the model is opened once for all scenes. Outputs are named after their scenes; one that fails is listed and
    the others go on (exit code 5); what is done already, by the same bundle, settings and source, is skipped.

    The bundle's golden vector runs before, among and after the tiles: damaged memory ends the command, and nothing is written. A
    single tile of a scene on which the model fails, or gives NaN, has no answer there; --json lists it, and the exit code is 3.

    Examples:

        rsedge infer runs/quickstart/bundles/openvino-cpu-int8 scene.tif --output mask.tif

        rsedge infer bundle.zip dn.tif --output mask.tif --bands blue,green,red,nir --scale 0.0001

        rsedge infer bundle.zip before.tif --after after.tif --output change.tif

        rsedge infer bundle.zip picture.png --prompt 'How many ships are there?' --output answer.txt

        rsedge infer detector.zip scene.tif --output objects.geojson

        rsedge infer masks.zip scene.tif --prompts points.geojson --output masks.geojson

        rsedge infer encoder.zip scene.tif --output vectors.tif --heads crops.head,floods.head

        rsedge infer crops.zip scene.tif --output crops.tif --filter clouds.zip --filter-drops cloud,shadow

        rsedge infer bundle.zip scenes/ 'more/*.tif' items.json --output-dir masks
    """
    from rsedge.flight import load
    from rsedge.runtimes.inference.outputs import check_outputs

    _check_places(context, scenes, output, output_dir, after, prompts)
    if output is not None:
        check_outputs([output, probabilities], [bundle, filter, Path(scenes[0]), key, prompts, *(after or ())])
    options: dict[str, Any] = {
        "bands": band_names(bands), "sensor": sensor, "scale": scale, "offset": offset, "nodata": nodata,
        "nan_nodata": nan_nodata, "any_gsd": any_gsd, "overlap": overlap, "align_tiles": align_tiles,
        "score": score, "prompt": prompt, "cog": cog,
        "probability_type": probability_type, "probabilities": probabilities, "heads": band_names(heads) or (),
        "filter_drops": band_names(filter_drops) or (), "filter_least": filter_least,
    }  # fmt: skip
    opening: dict[str, Any] = {"threads": threads, "device": device, "hint": hint_named(hint), "self_test": self_test}
    with contextlib.ExitStack() as bundles:
        loaded = bundles.enter_context(load(bundle, key, **opening))
        if filter is not None:
            options["filter"] = bundles.enter_context(load(filter, key, **opening))
        opened = loaded.opened
        first = Path(scenes[0])
        if output_dir is not None:
            folders = [folder for folder in (output_dir, probabilities) if folder is not None]
            first = sources(scenes, taken(opened.manifest), folders)[0].path
        work = work_of(opened, first)
        refuse_unheeded(context, opened, work, device)
        for needed, names in (
            ("--filter", ("filter_drops", "filter_least")),
            ("--probabilities", ("probability_type",)),
        ):
            if context.params[needed.removeprefix("--")] is None:
                refuse_without(context, names, needed)
        for one in (loaded, options.get("filter")):
            if one is not None:
                _say_whose(one, require_passed, as_json)
                one.tune_for_many(first)
        if output_dir is not None:
            _many(loaded, scenes, output_dir, as_json, {**options, "form": format, "again": again})
        elif output is not None:
            _one(loaded, work, Path(scenes[0]), output, as_json, {**options, "after": after or (), "prompts": prompts})


def _check_places(
    context: typer.Context,
    scenes: list[str],
    output: Path | None,
    output_dir: Path | None,
    after: list[Path] | None,
    prompts: Path | None,
) -> None:
    """Whether what is given goes with one scene, or with many."""
    if (output is None) is (output_dir is None):
        raise RequestError("give --output FILE for one scene, or --output-dir DIR for any number of them; not both")
    if output_dir is None:
        refuse_without(context, ("format", "again"), "--output-dir")
        if len(scenes) > 1:
            raise RequestError(
                f"--output {output} is for one scene, and {len(scenes)} are given; give --output-dir DIR"
            )
    elif after or prompts:
        raise RequestError("--after and --prompts belong to one scene each; run their scenes one by one with --output")


def _say_whose(loaded: Bundle, require_passed: bool, as_json: bool) -> None:
    """Who signed a bundle and what became of its gates, before it answers."""
    if require_passed:
        cli_verdict.require_passed(loaded.opened)
    if not as_json:
        typer.echo(str(loaded.opened.signature), err=True)
        cli_verdict.say_verdict(loaded.opened)


def _one(loaded: Bundle, work: Work, scene: Path, output: Path, as_json: bool, options: dict[str, Any]) -> None:
    """One scene into one file."""
    from rsedge.runtimes.inference.screening import filter_text

    with progress_bar("mapping", quiet=as_json) as progress:
        record = loaded.predict(scene, output, progress=progress, warn=say_warning, **options)
    if as_json:
        print_json(record)
    else:
        typer.echo(work.inference().text(record))
        if "filter" in record:
            typer.echo(filter_text(record["filter"]))
    if record.get("run", {}).get("failed_tiles_count"):
        raise typer.Exit(GateFailed.exit_code)


def _many(loaded: Bundle, scenes: list[str], folder: Path, as_json: bool, options: dict[str, Any]) -> None:
    """All scenes into a folder, a line for each as it ends and a table of all at the end."""

    def on_scene(record: dict[str, Any]) -> None:
        if not as_json:
            typer.echo(f"{record['scene']}: {record['status']}{_detail(record)}", err=True)

    with scenes_bar(quiet=as_json) as progress:
        found = loaded.predict_all(scenes, folder, on_scene=on_scene, progress=progress, warn=say_warning, **options)
    if as_json:
        print_json(found)
    else:
        rows = table("scene", "", "seconds", "output")
        for record in found["scenes"]:
            seconds = record.get("seconds")
            add(
                rows,
                Path(record["scene"]).name,
                record["status"],
                "" if seconds is None else f"{seconds:.1f}",
                record.get("output", ""),
            )
        show(rows)
        typer.echo(
            f"{found['done']} done, {found['skipped']} skipped, {found['failed']} failed; {found['seconds']:.1f} s"
        )
    if found["exit_code"]:
        raise typer.Exit(found["exit_code"])


def _detail(record: dict[str, Any]) -> str:
    if "error" in record:
        return f": {record['error']}"
    return " (the same bundle, settings and source; --again does it anew)" if record["status"] == "skipped" else ""
