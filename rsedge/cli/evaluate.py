"""``rsedge evaluate``: a bundle's outputs against labels; needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsedge.cli.common import band_names, print_json, progress_bar, say_warning
from rsedge.cli.heed import given_options, refuse_unheeded
from rsedge.cli.options import (
    After,
    AlignTiles,
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
            help="Class numbers on the scene's grid, or a finer scene (GeoTIFF); objects as .xml, .json,"
            " .csv, .txt, .geojson or .gpkg.",
        ),
    ],
    ignore: Annotated[int, typer.Option(metavar="V", help="Label value that does not count.")] = 255,
    label_map: Annotated[
        str | None,
        typer.Option(metavar="V=CLASS,...", help="What label values are, e.g. 0=land,255=water,9=ignore."),
    ] = None,
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
    as_json: Json = False,
) -> None:
    """Compare a bundle's map of a scene with labels: kappa, accuracy, IoU per class, confusion matrix; of objects AP.
    A finer image is compared with a finer scene: PSNR and SSIM.

    Rows of the confusion matrix are labels, columns are predictions. Nodata pixels of the labels and of the scene do
    not count. The interval of kappa is a bootstrap over spatial blocks, as neighbouring pixels are not independent.

    Example:

        rsedge evaluate runs/quickstart/bundles/openvino-cpu-int8 scene.tif labels.tif --json
    """
    from rsedge.data.scenes.label_files import parse_map
    from rsedge.flight import load
    from rsedge.runtimes.inference.works.table import work_of

    with load(bundle, key, threads=threads) as loaded:
        opened = loaded.opened
        work = work_of(opened, scene)
        evaluation = work.evaluation(opened)
        refuse_unheeded(context, opened, work)
        if not as_json:
            typer.echo(str(opened.signature), err=True)
        if label_map is not None and "ignore" in given_options(context):
            raise RequestError(
                f"--ignore would be ignored: --label-map says what all values are; write {ignore}=ignore there"
            )
        with progress_bar("evaluating", quiet=as_json) as progress:
            record = loaded.evaluate(
                scene, labels, after=after or (), bands=band_names(bands), sensor=sensor, scale=scale, offset=offset, nodata=nodata,
                nan_nodata=nan_nodata, any_gsd=any_gsd, overlap=overlap, align_tiles=align_tiles, ignore=ignore,
                label_map=None if label_map is None else parse_map(label_map), progress=progress, warn=say_warning,
            )  # fmt: skip
    if as_json:
        print_json(record)
        return
    typer.echo(evaluation.text(record))
