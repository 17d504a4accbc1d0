"""``rsedge evaluate``: a bundle's outputs against labels; needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rsedge.cli.common import asked_of, opened_bundle, print_json, progress_bar, say_warning, score_text
from rsedge.cli.heed import given_options, refuse_unheeded
from rsedge.cli.options import (
    After,
    AnyGsd,
    Bands,
    BundlePath,
    Json,
    Key,
    NanNodata,
    Nodata,
    Offset,
    Overlap,
    Scale,
    ScenePath,
    Sensor,
    Threads,
)
from rsedge.data.errors import RequestError


def evaluate(
    context: typer.Context,
    bundle: BundlePath,
    scene: ScenePath,
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS",
            help="Class numbers on the scene's grid, or a finer scene (GeoTIFF); objects as .xml, .json or .csv.",
        ),
    ],
    ignore: Annotated[int, typer.Option(metavar="V", help="Label value that does not count.")] = 255,
    label_map: Annotated[
        str | None,
        typer.Option(metavar="V=CLASS,...", help="What label values are, e.g. 0=land,255=water,9=ignore."),
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
    as_json: Json = False,
) -> None:
    """Compare a bundle's map of a scene with labels: kappa, accuracy, IoU per class, confusion matrix; of objects AP.
    A finer image is compared with a finer scene: PSNR and SSIM.

    Rows of the confusion matrix are labels, columns are predictions. Nodata pixels of the labels and of the scene do
    not count. The interval of kappa is a bootstrap over spatial blocks, as neighbouring pixels are not independent.

    Example:

        rsedge evaluate runs/quickstart/bundles/openvino-cpu-int8 scene.tif labels.tif --json
    """
    from rsedge.cli.detect import evaluate_objects, print_box_evaluation
    from rsedge.data.scenes.label_files import parse_map
    from rsedge.runtimes.bundle.self_test import self_tested
    from rsedge.runtimes.inference.evaluate import evaluate_scene
    from rsedge.runtimes.inference.images import evaluate_image
    from rsedge.runtimes.inference.predict import open_scene, provenance
    from rsedge.runtimes.inference.works import work_of

    asked = asked_of(
        bands, after, sensor=sensor, scale=scale, offset=offset, nodata=nodata, nan_nodata=nan_nodata, any_gsd=any_gsd
    )

    with opened_bundle(bundle, key) as opened:
        spec, work = opened.manifest.input_spec, work_of(opened, scene)
        if work not in ("maps", "dates", "objects", "images"):
            gives = "texts" if work == "captions" else "one answer per chip or sample"
            raise RequestError(f"{bundle}: gives {gives}, no labels on a grid; its recipe's report compares them")
        refuse_unheeded(context, opened, work)
        if not as_json:
            typer.echo(str(opened.signature), err=True)
        if label_map is not None and "ignore" in given_options(context):
            raise RequestError(
                f"--ignore would be ignored: --label-map says what all values are; write {ignore}=ignore there"
            )
        with (
            open_scene([scene, *asked.after], spec, asked, say_warning) as reader,
            self_tested(opened.session(threads), opened) as session,
            progress_bar("evaluating", quiet=as_json) as progress,
        ):
            if work == "objects":
                record = evaluate_objects(opened, session, reader, labels, overlap, progress)
            elif work == "images":
                record = evaluate_image(session, reader, labels, opened.manifest, overlap, progress, **asked.reading)
            else:
                record = evaluate_scene(
                    session,
                    reader,
                    labels,
                    opened.manifest.classes,
                    overlap,
                    ignore,
                    None if label_map is None else parse_map(label_map),
                    progress,
                )
                for warning in record["label_warnings"]:
                    say_warning(warning)
            record = {**record, "labels": str(labels), **provenance(opened, session, reader)}
    if as_json:
        print_json(record)
    elif work == "objects":
        print_box_evaluation(record)
    elif work == "images":
        typer.echo(_told_image(record))
    else:
        _print_evaluation(record)


def _told_image(record: dict[str, Any]) -> str:
    def figure(name: str, unit: str, places: int) -> str:
        interval = record[f"{name}_interval"]
        within = f" ({interval[0]:.{places}f} to {interval[1]:.{places}f})" if interval else ""
        return f"{name.upper()} {record[name]:.{places}f}{unit}{within}"

    return f"{figure('psnr', ' dB', 2)}, {figure('ssim', '', 4)}; {record['blocks']} blocks, bands {', '.join(record['bands'])}"


def _print_evaluation(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    interval = record["kappa_interval"]
    within = f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f}, {record['blocks']} blocks)" if interval else ""
    kappa, accuracy = (score_text(record[name]) for name in ("kappa", "accuracy"))
    typer.echo(f"kappa {kappa}{within}, accuracy {accuracy}, n = {record['n']:,} pixels")
    table = Table(box=None, pad_edge=False, title="rows: label, columns: prediction", title_justify="left")
    for column in ("", *record["classes"], "IoU"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in zip(record["classes"], record["confusion"], strict=True):
        value = record["iou"][name]
        table.add_row(name, *(f"{v:,}" for v in row), "-" if value is None else f"{value:.3f}")
    Console().print(table)
