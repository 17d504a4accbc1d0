"""``rsedge infer``: a bundle on a scene, on samples or a picture; needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsedge.cli import verdict as cli_verdict
from rsedge.cli.common import band_names, hint_named, print_json, progress_bar, say_warning
from rsedge.cli.heed import refuse_unheeded
from rsedge.cli.options import (
    After,
    AnyGsd,
    Bands,
    BundlePath,
    Device,
    HintOption,
    Json,
    Key,
    NanNodata,
    Nodata,
    Offset,
    Overlap,
    Scale,
    ScenePath,
    SelfTest,
    Sensor,
    Threads,
)


def infer(
    context: typer.Context,
    bundle: BundlePath,
    scene: ScenePath,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File to write: a class map (255 = nodata) or finer image (GeoTIFF), or objects (.geojson, .csv).",
        ),
    ],
    probabilities: Annotated[
        Path | None, typer.Option(metavar="P.tif", help="Also write class probabilities (float32, one band per class).")
    ] = None,
    overlap: Overlap = None,
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
    device: Device = None,
    hint: HintOption = "latency",
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

    The bundle's golden vector runs before, among and after the tiles: damaged memory ends the command, and nothing is written.

    Examples:

        rsedge infer runs/quickstart/bundles/openvino-cpu-int8 scene.tif --output mask.tif

        rsedge infer bundle.zip dn.tif --output mask.tif --bands blue,green,red,nir --scale 0.0001

        rsedge infer bundle.zip before.tif --after after.tif --output change.tif

        rsedge infer bundle.zip picture.png --prompt 'How many ships are there?' --output answer.txt

        rsedge infer detector.zip scene.tif --output objects.geojson

        rsedge infer masks.zip scene.tif --prompts points.geojson --output masks.geojson
    """
    from rsedge.flight import load
    from rsedge.runtimes.inference.outputs import check_outputs
    from rsedge.runtimes.inference.works.table import work_of

    check_outputs([output, probabilities], [bundle, scene, key, prompts, *(after or ())])
    with load(bundle, key, threads=threads, device=device, hint=hint_named(hint), self_test=self_test) as loaded:
        opened = loaded.opened
        work = work_of(opened, scene)
        refuse_unheeded(context, opened, work, device)
        if require_passed:
            cli_verdict.require_passed(opened)
        if not as_json:
            typer.echo(str(opened.signature), err=True)
            cli_verdict.say_verdict(opened)
        with progress_bar("mapping", quiet=as_json) as progress:
            record = loaded.predict(
                scene, output, after=after or (), bands=band_names(bands), sensor=sensor, scale=scale, offset=offset, nodata=nodata,
                nan_nodata=nan_nodata, any_gsd=any_gsd, overlap=overlap, probabilities=probabilities, score=score, prompt=prompt,
                prompts=prompts, progress=progress, warn=say_warning,
            )  # fmt: skip
    if as_json:
        print_json(record)
        return
    typer.echo(work.inference().text(record))
