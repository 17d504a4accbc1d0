"""``rsedge head``: a small file that turns what an encoder gives into answers; one encoder in orbit serves many of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rsedge.cli.common import band_names, print_json, progress_bar, say_warning, unwrapped
from rsedge.cli.heed import given_options, refuse_without
from rsedge.cli.options import (
    AnyGsd,
    Bands,
    BundlePath,
    Device,
    Json,
    Key,
    NanNodata,
    Nodata,
    Offset,
    Scale,
    Sensor,
    Threads,
)
from rsedge.data.errors import RequestError

if TYPE_CHECKING:
    from rsedge.flight import Bundle
    from rsedge.runtimes.bundle.head import HeadRecord

OF_SAMPLES = ("settings", "fill")
OF_SCENES = ("labels", "ignore", "label_map", "bands", "sensor", "scale", "offset", "nodata", "nan_nodata", "any_gsd")


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("head", help=unwrapped(head.__doc__ or ""))(head)


def head(
    context: typer.Context,
    bundle: BundlePath,
    samples: Annotated[
        list[str],
        typer.Argument(
            metavar="SAMPLES...",
            help="Labelled samples: a name of `rsedge sources`, or a .npz, .csv or .parquet; of an encoder that gives maps of "
            "features, scenes (GeoTIFF).",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="NAME.head", help="File to write; NAME names the head.")],
    labels: Annotated[
        list[Path] | None,
        typer.Option(metavar="LABELS", help="Of scenes: class numbers (or values) on the scene's grid, as GeoTIFF; once a scene."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Names of the outputs in the labels' order; the samples' own when not given."),
    ] = None,
    regression: Annotated[bool, typer.Option("--regression", help="Labels are values, not classes.")] = False,
    ignore: Annotated[int, typer.Option(metavar="V", help="Of scenes: label value that does not count.")] = 255,
    label_map: Annotated[
        str | None,
        typer.Option(metavar="V=CLASS,...", help="Of scenes: what label values are, e.g. 0=land,1=water,9=ignore."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Options of the samples, as `data.samples.options` of a recipe."),
    ] = None,
    fill: Annotated[bool, typer.Option("--fill", help="Fill gaps of series from the times before and after.")] = False,
    sign: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="Private key that signs the head, e.g. keys/signing.pem of the run; else it is unsigned."),
    ] = None,
    bands: Bands = None,
    sensor: Sensor = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    nan_nodata: NanNodata = False,
    any_gsd: AnyGsd = False,
    threads: Threads = None,
    device: Device = None,
    key: Key = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Fit a head on what an encoder's bundle itself gives for labelled samples or scenes.

    The bundle stays as it is: its own executable, rounding included, gives the vectors, and the head is linear, with its penalty
    chosen on groups of samples left out. What it reaches is judged on groups that it had not seen, with 95 % intervals. The file
    is a few kilobytes, belongs to this very bundle, and can be sent up alone: `rsedge infer BUNDLE SCENE --output vectors.tif
    --heads NAME.head`.

    Where the bundle gives maps of features, give scenes and their labels: the head then answers for every pixel, and its groups are
    blocks of the scenes. One class alone is a yes or no, labels of 1 or 0.

    Examples:

        rsedge head encoder.zip crops.npz --classes other,crop --output crops.head --sign keys/signing.pem

        rsedge head encoder.zip worldcereal-crop --fill --output crops.head

        rsedge head maps.zip a.tif b.tif --labels a_water.tif --labels b_water.tif --classes land,water --output water.head
    """
    from rsedge.export.signing import load_key
    from rsedge.flight import load
    from rsedge.heads import write_head
    from rsedge.runtimes.bundle.head import SUFFIX
    from rsedge.runtimes.inference.outputs import check_outputs

    if output.suffix != SUFFIX:
        raise RequestError(f"--output {output}: a head's file ends in {SUFFIX}: {output.with_suffix(SUFFIX)}")
    check_outputs([output], [bundle, key, sign, *(labels or ())])
    signing = None if sign is None else load_key(sign)
    task: Literal["classification", "regression"] = "regression" if regression else "classification"
    names = tuple(band_names(classes) or ())
    with (
        load(bundle, key, threads=threads, device=device) as opened,
        progress_bar("encoding", quiet=as_json) as progress,
    ):
        maps = opened.manifest.stride is not None
        refuse_without(
            context,
            OF_SAMPLES if maps else OF_SCENES,
            "an encoder that gives vectors" if maps else "an encoder that gives maps of features",
        )
        if maps:
            reading = {"bands": band_names(bands), "sensor": sensor, "scale": scale, "offset": offset, "nodata": nodata,
                       "nan_nodata": nan_nodata, "any_gsd": any_gsd}  # fmt: skip
            if label_map is not None and "ignore" in given_options(context):
                raise RequestError(
                    f"--ignore would be ignored: --label-map says what all values are; write {ignore}=ignore there"
                )
            record = _of_scenes(
                opened, samples, labels or [], output.stem, names, task, reading, ignore, label_map, progress
            )
        else:
            record = _of_samples(opened, samples, settings or [], fill, output.stem, names, task, progress)
    write_head(record, output, signing)
    _say(record, output, sign is not None, as_json)


def _of_samples(
    opened: Bundle,
    samples: Sequence[str],
    settings: Sequence[str],
    fill: bool,
    name: str,
    classes: tuple[str, ...],
    task: Literal["classification", "regression"],
    progress: Any,
) -> HeadRecord:
    from rsedge.data.documents import parse_value
    from rsedge.data.sets.sample_sources import load_samples
    from rsedge.heads import fitted_head

    if len(samples) != 1:
        raise RequestError(f"SAMPLES: {len(samples)} are given; a head on vectors is fitted on one set of samples")
    options: dict[str, Any] = {}
    for setting in settings:
        field, equals, text = setting.partition("=")
        if not equals or not field:
            raise RequestError(f"--set {setting}: write FIELD=VALUE, e.g. --set label=crop")
        options[field] = parse_value(text)
    found = load_samples(samples[0], fill="time" if fill else "none", **options)
    return fitted_head(opened, found, name, classes, task, progress)


def _of_scenes(
    opened: Bundle,
    scenes: Sequence[str],
    labels: Sequence[Path],
    name: str,
    classes: tuple[str, ...],
    task: Literal["classification", "regression"],
    reading: dict[str, Any],
    ignore: int,
    label_map: str | None,
    progress: Any,
) -> HeadRecord:
    from rsedge.data.scenes.label_files import parse_map
    from rsedge.map_heads import LabelledScene, Reading, fitted_map_head

    if len(labels) != len(scenes):
        raise RequestError(f"--labels: {len(labels)} for {len(scenes)} scenes; give it once a scene, in their order")
    pairs = [LabelledScene(Path(scene), file) for scene, file in zip(scenes, labels, strict=True)]
    how = Reading(reading, ignore, None if label_map is None else parse_map(label_map))
    return fitted_map_head(opened, pairs, name, classes, task, how, progress=progress, warn=say_warning)


def _say(record: HeadRecord, output: Path, signed: bool, as_json: bool) -> None:
    about = record.model_dump(mode="json", exclude={"weight", "bias"})
    if as_json:
        print_json({"output": str(output), "bytes": output.stat().st_size, "signed": signed, **about})
        return
    maps = record.stride is not None
    typer.echo(
        f"{output}: {len(record.classes)} outputs ({', '.join(record.classes)}) from {record.features} numbers of "
        f"'{record.encoder}'{f' at every {record.stride}x{record.stride} pixels' if maps else ''}, fitted on {record.count:,} "
        f"{'pixels' if maps else 'samples'}; {output.stat().st_size / 1e3:.1f} kB, {'signed' if signed else 'UNSIGNED'}"
    )
    for metric, figure in record.figures.items():
        typer.echo(f"  {metric} on {'blocks' if maps else 'groups'} it had not seen: {_figure(figure)}")


def _figure(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "not defined"
    interval = figure["interval"]
    return f"{figure['value']:.3f}" + ("" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})")
