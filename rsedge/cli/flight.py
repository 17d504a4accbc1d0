"""The commands that fly: they need no torch, only the base install and the bundle's runtime."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsedge.cli import verdict as cli_verdict
from rsedge.cli.heed import given_options, refuse_unheeded, work_of
from rsedge.data.errors import GateFailed, RequestError
from rsedge.data.verdict import NO_VERDICT, verdict_record, verdict_text

if TYPE_CHECKING:
    from rsedge.data.bands import InputSpec
    from rsedge.data.geotiff import SceneReader
    from rsedge.data.geotiff_dates import DatesReader
    from rsedge.runtimes.bundle import Bundle
    from rsedge.runtimes.scene import Progress
    from rsedge.runtimes.self_test import SelfTested
    from rsedge.runtimes.session import Hint

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder or .zip.")]
ScenePath = Annotated[Path, typer.Argument(metavar="SCENE", help="GeoTIFF.")]
Key = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="PUB",
        help="Public key (PEM) that must have signed the bundle, over those of `rsedge trust`.",
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores when not given.")]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="Another device of the bundle's runtime, e.g. CPU; for checks.")
]
HintOption = Annotated[
    str, typer.Option("--hint", metavar="latency|throughput", help="OpenVINO: one tile at a time, or many in flight.")
]
SelfTest = Annotated[
    int,
    typer.Option(
        "--self-test",
        metavar="N",
        min=0,
        help="Run the golden vector at the start, after every N tiles and at the end; 0: at the start only.",
    ),
]
Overlap = Annotated[
    int | None,
    typer.Option(help="Pixels by which tiles overlap; an eighth of a tile when not given. More: smoother, slower."),
]
Bands = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,C",
        help="Names of all bands in the file's order, '-' for one to leave out; for files that do not name theirs.",
    ),
]
Scale = Annotated[
    float | None, typer.Option(help="physical = value * scale + offset, e.g. 0.0001; over the file's own tags.")
]
Offset = Annotated[float | None, typer.Option(help="See --scale.")]
Sensor = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Whose band numbers the file's names are, e.g. sentinel-2; over its own tags."),
]
Nodata = Annotated[
    float | None, typer.Option(metavar="V", help="A file value of missing pixels, beside those that the file declares.")
]
NanNodata = Annotated[bool, typer.Option("--nan-nodata", help="Treat NaN and infinity as missing pixels.")]
AnyGsd = Annotated[bool, typer.Option("--any-gsd", help="Run at a pixel size that the model was not made for.")]
After = Annotated[
    list[Path] | None,
    typer.Option(metavar="SCENE", help="The same place at a later date, for models that compare dates; once per date."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def register(app: typer.Typer) -> None:
    """Adds the flying commands to the command line."""
    for name, function in (
        ("infer", infer),
        ("evaluate", evaluate),
        ("verify", verify),
        ("inspect", inspect),
    ):
        app.command(name, help=unwrapped(function.__doc__ or ""))(function)


def unwrapped(text: str) -> str:
    """Paragraphs on one line each, so that the terminal's width alone breaks them."""
    paragraphs = textwrap.dedent("    " + text).strip().split("\n\n")
    return "\n\n".join(" ".join(line.strip() for line in p.splitlines()) for p in paragraphs)


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
    from rsedge.runtimes.outputs import check_outputs
    from rsedge.runtimes.scene import infer_scene
    from rsedge.runtimes.self_test import self_tested
    from rsedge.runtimes.vectors import infer_chips

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
            record = infer_caption(opened, scene, output, prompt, threads, device) | verdict
            if as_json:
                print_json(record)
            else:
                typer.echo(f"{record['caption']}\n{output}: {record['seconds']:.1f} s on {record['device']}")
            return
        if work == "samples":
            inner = opened.session(threads, device, _hint(hint))
            with self_tested(inner, opened, self_test) as session:
                _infer_samples(opened, session, scene, output, as_json)
            return
        with (
            _reader(
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
            self_tested(opened.session(threads, device, _hint(hint)), opened, self_test) as session,
            progress_bar("mapping", quiet=as_json) as progress,
        ):
            names = opened.manifest.classes
            if work == "objects":
                record = infer_objects(opened, session, reader, output, score, overlap, progress)
            elif work in ("maps", "dates"):
                record = infer_scene(session, reader, output, names, overlap, probabilities, progress=progress)
            else:
                record = infer_chips(session, reader, output, opened.manifest.task, names, progress)
            record = {**record, **_provenance(opened, session, reader), **verdict}
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
    from rsedge.runtimes.vectors import read_samples, run_samples, write_samples

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


def evaluate(
    context: typer.Context,
    bundle: BundlePath,
    scene: ScenePath,
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS", help="Class numbers on the scene's grid (GeoTIFF); of a detector .xml, .json or .csv."
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

    Rows of the confusion matrix are labels, columns are predictions. Nodata pixels of the labels and of the scene do
    not count. The interval of kappa is a bootstrap over spatial blocks, as neighbouring pixels are not independent.

    Example:

        rsedge evaluate runs/quickstart/bundles/openvino-cpu-int8 scene.tif labels.tif --json
    """
    from rsedge.cli.detect import evaluate_objects, print_box_evaluation
    from rsedge.data.label_files import parse_map
    from rsedge.runtimes.evaluate import evaluate_scene
    from rsedge.runtimes.self_test import self_tested

    with opened_bundle(bundle, key) as opened:
        spec, work = opened.manifest.input_spec, work_of(opened, scene)
        if work not in ("maps", "dates", "objects"):
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
            _reader(
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
            self_tested(opened.session(threads), opened) as session,
            progress_bar("evaluating", quiet=as_json) as progress,
        ):
            if work == "objects":
                record = evaluate_objects(opened, session, reader, labels, overlap, progress)
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
            record = {**record, "labels": str(labels), **_provenance(opened, session, reader)}
    if as_json:
        print_json(record)
    elif work == "objects":
        print_box_evaluation(record)
    else:
        _print_evaluation(record)


def verify(
    context: typer.Context,
    bundle: BundlePath,
    key: Key = None,
    threads: Threads = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Check a bundle on this machine: file hashes, signature, and its golden vector on the actual executable.

    Ends with exit code 2 when a file or the signature is wrong, 3 when the executable gives other numbers. With --device
    CPU a bundle for an NPU, GPU or VPU is checked where there is none; that proves its files, not the device.

    Example:

        rsedge verify bundle.zip --key team.pub
    """
    with opened_bundle(bundle, key) as opened:
        refuse_unheeded(context, opened, device=device)
        result = opened.verify(threads, device)
        signature = opened.signature
        record = {
            "bundle": str(bundle),
            "target": opened.manifest.target.name,
            "files": len(opened.manifest.files),
            **signature.record(),
            "golden": result.as_dict(),
            "passed": result.passed,
            "verdict": verdict_record(opened.manifest.verdict),
        }
        verdict = verdict_text(opened.manifest.verdict)
    text = (
        f"golden vector: largest difference {result.max_abs_difference:.3g} (limit {result.atol:.3g}), "
        f"{result.agreement:.4%} of {result.n} pixels agree (limit {result.agreement_min:.2%})"
    )
    if not result.passed:
        if not result.valid_equal:
            text += "; the nodata mask differs"
        raise GateFailed(f"{bundle}: {text}; do not fly this bundle on this machine")
    if as_json:
        print_json(record)
        return
    typer.echo(f"{bundle}: {record['files']} files whole; {signature}\n{text}\n{verdict}")


def inspect(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Bundle, .onnx, .xml, .tif, structure.json, .safetensors or .engine.")
    ],
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Say what a file is: its contract, classes, sizes, and what it was made from.

    Examples:

        rsedge inspect runs/quickstart/bundles/openvino-cpu-int8

        rsedge inspect scene.tif
    """
    from rsedge.runtimes.inspecting import describe

    record = describe(file, key)
    if as_json:
        print_json(record)
        return
    if record["kind"] == "bundle" and record["verdict"] is None:
        record["verdict"] = NO_VERDICT
    for line in _lines(record):
        typer.echo(line)


def _hint(name: str) -> Hint:
    hints: dict[str, Hint] = {"latency": "latency", "throughput": "throughput"}
    if name not in hints:
        raise RequestError(f"--hint {name}: choose {' or '.join(hints)}")
    return hints[name]


@contextlib.contextmanager
def opened_bundle(path: Path, key: Path | None) -> Iterator[Bundle]:
    from rsedge.runtimes.bundle import Bundle

    with Bundle.open(path, key=key) as bundle:
        yield bundle


@contextlib.contextmanager
def _reader(
    scenes: list[Path], spec: InputSpec, bands: str | None, **options: Any
) -> Iterator[SceneReader | DatesReader]:
    """One scene, or several dates of it."""
    from rsedge.data.geotiff import SceneReader
    from rsedge.data.geotiff_dates import DatesReader, one_date

    names = None if bands is None else [b.strip() for b in bands.split(",")]
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(SceneReader(scene, one_date(spec), bands=names, **options)) for scene in scenes]
        reader = readers[0] if spec.layout == "CHW" and len(readers) == 1 else DatesReader(readers, spec)
        for warning in reader.warnings:
            typer.echo(f"warning: {warning}", err=True)
        yield reader


@contextlib.contextmanager
def progress_bar(what: str, quiet: bool) -> Iterator[Progress]:
    """A bar with the time left, on stderr and only where someone looks at it."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress, TimeElapsedColumn

    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _provenance(bundle: Bundle, session: SelfTested, reader: SceneReader | DatesReader) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "scene": str(reader.path),
        "units": reader.units.source,
        "gsd_m": reader.gsd_m,
        "bundle": str(bundle.path),
        "target": manifest.target.name,
        **bundle.signature.record(),
        "device": session.device,
        "runtime": session.runtime,
        "runtime_version": session.runtime_version,
        "self_test": session.record(),
        "warnings": reader.warnings,
    }


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


def score_text(value: float | None) -> str:
    """A score with four decimals, or that there is none: one class alone has no kappa."""
    return "not defined" if value is None else f"{value:.4f}"


def print_json(record: dict[str, Any]) -> None:
    typer.echo(json.dumps(_finite(record), allow_nan=False))


def _finite(value: Any) -> Any:
    """NaN and infinity are not JSON; they become null."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(record: Any, indent: str = "") -> Iterator[str]:
    """Nested records as indented ``name: value`` lines."""
    for name, value in record.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"{indent}{name}:"
            for item in value:
                yield f"{indent}  - " + ", ".join(f"{k} {v}" for k, v in item.items() if v is not None)
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else value
            yield f"{indent}{name}: {'-' if text is None or text == '' else text}"
