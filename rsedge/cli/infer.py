"""``rsedge infer``: a bundle on a scene, on samples or a picture; needs no torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsedge.cli import verdict as cli_verdict
from rsedge.cli.common import hint_named, opened_bundle, opened_scene, print_json, progress_bar, provenance
from rsedge.cli.heed import refuse_unheeded, work_of
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
from rsedge.data.metrics.verdict import verdict_record

if TYPE_CHECKING:
    from rsedge.runtimes.bundle.reading import Bundle
    from rsedge.runtimes.bundle.self_test import SelfTested


def infer(
    context: typer.Context,
    bundle: BundlePath,
    scene: ScenePath,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="File to write: a class map (GeoTIFF, 255 = nodata), or objects (.geojson, .csv)."
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

    The bundle's golden vector runs before, among and after the tiles: damaged memory ends the command, and nothing is written.

    Examples:

        rsedge infer runs/quickstart/bundles/openvino-cpu-int8 scene.tif --output mask.tif

        rsedge infer bundle.zip dn.tif --output mask.tif --bands blue,green,red,nir --scale 0.0001

        rsedge infer bundle.zip before.tif --after after.tif --output change.tif

        rsedge infer bundle.zip picture.png --prompt 'How many ships are there?' --output answer.txt

        rsedge infer detector.zip scene.tif --output objects.geojson
    """
    from rsedge.cli.captions import infer_caption
    from rsedge.cli.detect import infer_objects, told_objects
    from rsedge.runtimes.bundle.self_test import self_tested
    from rsedge.runtimes.inference.outputs import check_outputs
    from rsedge.runtimes.inference.scene import infer_scene
    from rsedge.runtimes.inference.vectors import infer_chips

    check_outputs([output, probabilities], [bundle, scene, key, *(after or ())])
    with opened_bundle(bundle, key) as opened:
        spec, work = opened.manifest.input_spec, work_of(opened, scene)
        refuse_unheeded(context, opened, work, device)
        if require_passed:
            cli_verdict.require_passed(opened)
        if not as_json:
            typer.echo(str(opened.signature), err=True)
            cli_verdict.say_verdict(opened)
        verdict = {"verdict": verdict_record(opened.manifest.verdict)}
        if work == "captions":
            record = infer_caption(opened, scene, output, prompt, threads, device, self_test) | verdict
            if as_json:
                print_json(record)
            else:
                typer.echo(f"{record['caption']}\n{output}: {record['seconds']:.1f} s on {record['device']}")
            return
        if work == "samples":
            inner = opened.session(threads, device, hint_named(hint))
            with self_tested(inner, opened, self_test) as session:
                _infer_samples(opened, session, scene, output, as_json)
            return
        with (
            opened_scene(
                [scene, *(after or ())],
                spec,
                bands,
                sensor=sensor,
                scale=scale,
                offset=offset,
                nodata=nodata,
                nan_nodata=nan_nodata,
                any_gsd=any_gsd,
            ) as reader,
            self_tested(opened.session(threads, device, hint_named(hint)), opened, self_test) as session,
            progress_bar("mapping", quiet=as_json) as progress,
        ):
            names = opened.manifest.classes
            if work == "objects":
                record = infer_objects(opened, session, reader, output, score, overlap, progress)
            elif work in ("maps", "dates"):
                record = infer_scene(session, reader, output, names, overlap, probabilities, progress=progress)
            else:
                record = infer_chips(session, reader, output, opened.manifest.task, names, progress)
            record = {**record, **provenance(opened, session, reader), **verdict}
    if as_json:
        print_json(record)
        return
    if work == "objects":
        typer.echo(told_objects(record))
        return
    if work == "chips":
        told = ", ".join(f"{n} {c}" for n, c in record["pixels"].items() if c)
        typer.echo(f"{output}: {record['width']}x{record['height']} chips, {record['nodata_pixels']} nodata; {told}")
        typer.echo(f"{record['seconds']:.1f} s on {record['device']} ({record['target']})")
        return
    total = sum(record["pixels"].values())
    shares = ", ".join(f"{n} {c / max(total, 1):.1%}" for n, c in record["pixels"].items())
    speed = record["height"] * record["width"] / 1e6 / max(record["seconds"], 1e-9)
    typer.echo(f"{output}: {shares}; {record['nodata_pixels']:,} nodata pixels")
    typer.echo(f"{record['seconds']:.1f} s, {speed:.2f} megapixels/s on {record['device']} ({record['target']})")


def _infer_samples(bundle: Bundle, session: SelfTested, path: Path, output: Path, as_json: bool) -> None:
    from rsedge.runtimes.inference.vectors import read_samples, run_samples, write_samples

    manifest = bundle.manifest
    dn = read_samples(path, manifest.input_spec)
    began = time.perf_counter()
    with progress_bar("samples", quiet=as_json) as progress:
        found = run_samples(session, dn, progress)
    seconds = time.perf_counter() - began
    write_samples(output, manifest.task, found, manifest.classes)
    record = {"output": str(output), "samples": len(dn), "outputs": found.shape[1], "seconds": round(seconds, 3),
              "target": manifest.target.name, "device": session.device, "runtime": session.runtime,
              "verdict": verdict_record(manifest.verdict), "self_test": session.record(), **bundle.signature.record()}  # fmt: skip
    if as_json:
        print_json(record)
        return
    typer.echo(f"{output}: {len(dn)} samples, {found.shape[1]} outputs each")
    typer.echo(
        f"{seconds:.1f} s, {len(dn) / max(seconds, 1e-9):.0f} samples/s on {session.device} ({manifest.target.name})"
    )
