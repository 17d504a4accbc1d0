"""``rsedge bench``: a bundle's latency, throughput, memory and energy, on this machine or on a device over SSH."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsedge.cli.common import check_page, opened_bundle, print_json, progress_bar, unwrapped
from rsedge.cli.heed import given_options, refuse_unheeded, refuse_without
from rsedge.cli.options import Json, Key, Threads
from rsedge.data.errors import RequestError
from rsedge.data.metrics.verdict import verdict_record, verdict_text

if TYPE_CHECKING:
    from rsedge.runtimes.bundle.reading import Bundle

BURST_SHARE, IDLE_S = 0.4, 1.0
BARE_TARGET = "openvino-cpu-{}"
MODEL_FILES = (".onnx", ".xml")
LAYERS_SHOWN = 30


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("bench", help=unwrapped(bench.__doc__ or ""))(bench)


def bench(
    context: typer.Context,
    bundle: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Bundle (folder or .zip), ONNX file or OpenVINO IR (.xml).")
    ],
    threads: Threads = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure steady load.")] = 5.0,
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="ssh://[user@]host[:port][/folder]", help="Measure on this device instead."),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also measure the time of each layer.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --layers: also write them as a page with a flame bar.")
    ] = None,
    remote_python: Annotated[
        str, typer.Option(metavar="PYTHON", help="With --on: the device's interpreter that has the runtime.")
    ] = "python3",
    reconnect: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="With --on: how long to try again after a lost link.")
    ] = 120.0,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="Of a model file: what runs it here; OpenVINO in the file's own precision by default.",
        ),
    ] = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Measure latency, throughput, memory and, where power rails are readable, energy of a bundle or a model file, batch 1.

    p50 is the typical latency, p90 and p99 what the slow tiles take: plan with those. Close other programs first.

    With --on the bundle is measured on a device over SSH: it needs a Python 3.8 or newer with NumPy and the bundle's
    runtime (TensorRT as JetPack brings it), nothing of rsedge. TensorRT engines are built there. Start the same command
    again after a lost link and it goes on; nothing stays on the device.

    A model file (ONNX, IR) is timed here with drawn inputs of its own shapes. What its graph holds, and in what the runtime
    computes it, are said as they are found; a --target of a precision that is not the file's is refused. `rsedge latency`
    also predicts other devices.

    Examples:

        rsedge bench model.onnx --target onnxruntime-cpu-f32

        rsedge bench runs/quickstart/bundles/openvino-cpu-int8 --threads 2 --seconds 10 --layers

        rsedge bench runs/quickstart/bundles/tensorrt-jetson-orin-nano-8gb-fp16 --on ssh://me@jetson.local
    """
    from rsedge.runtimes.inference.outputs import check_outputs

    if not layers:
        refuse_without(context, ["html"], "--layers")
    if on is None:
        refuse_without(context, ["remote_python", "reconnect"], "--on")
    check_outputs([html], [bundle, key])
    check_page(html, "rsedge bench --layers")
    if bundle.suffix in MODEL_FILES:
        _refuse_for_files(context, bundle)
        record = _file(bundle, target, threads, seconds, as_json)
        print_json(record) if as_json else _print_record(record)
        return
    if target is not None:
        raise RequestError(f"{bundle}: --target is for model files; a bundle has its own")
    with opened_bundle(bundle, key) as opened, progress_bar("measuring", quiet=as_json) as progress:
        refuse_unheeded(context, opened)
        if opened.manifest.parts is not None and (layers or on is not None):
            raise RequestError(f"{bundle}: is of several parts, which are measured here and without --layers")

        def shown(share: float) -> None:
            progress(round(100 * share), 100)

        if on is None:
            record = _here(opened, key, threads, seconds, layers, shown)
        else:
            record = _there(opened, on, threads, seconds, layers, remote_python, reconnect, shown)
        of = "tiles" if opened.manifest.parts is None else "samples"
        top = {"bundle": str(bundle), "target": opened.manifest.target.name, "of": of}
        record = {**top, **record, "size_bytes": opened.size_bytes, "verdict": verdict_record(opened.manifest.verdict),
                  **opened.signature.record()}  # fmt: skip
        signature, verdict = opened.signature, verdict_text(opened.manifest.verdict)
    if html is not None:
        _write_html(record, html)
    if as_json:
        print_json(record)
        return
    _print_record(record)
    typer.echo(f"{signature}\n{verdict}")


def _refuse_for_files(context: typer.Context, path: Path) -> None:
    """Refuses options that a model file without a manifest has nothing for.

    Raises:
        RequestError: names them.
    """
    if idle := [
        n for n in given_options(context) if n in ("on", "layers", "html", "remote_python", "reconnect", "key")
    ]:
        raise RequestError(
            f"{path}: --{idle[0].replace('_', '-')} is for bundles; leave it out, or make one by `rsedge run`"
        )


def _file(path: Path, target: str | None, threads: int | None, seconds: float, quiet: bool) -> dict[str, Any]:
    """The record of a model file: ``holds`` says what its graph holds, ``precision`` in what the runtime computed it."""
    from rsedge.devices.profiles.profile import check_target
    from rsedge.devices.table.bare import measured
    from rsedge.runtimes.bundle.manifest import Target
    from rsedge.runtimes.graph_types import GraphTypes
    from rsedge.runtimes.inspecting import graph_types
    from rsedge.runtimes.session import cpu_count

    if target is not None and Target.parse(target).device != "cpu":
        raise RequestError(
            f"--target {target}: a model file is timed on this machine's CPU; `rsedge latency` predicts others"
        )
    if not path.is_file():
        raise RequestError(f"{path}: no such file")
    types = graph_types(path)
    own = (types or GraphTypes({}, False)).precision
    target = target or BARE_TARGET.format(own)
    check_target(target)
    parsed = Target.parse(target)
    if types is not None and not types.fits(parsed.precision):
        raise RequestError(
            f"{path}: holds a {types.words}, whose time is none of --target {target}; leave --target out, or give "
            f"{parsed.runtime}-cpu-{own}"
        )
    with progress_bar("measuring", quiet=quiet) as progress:
        found = measured(
            path, parsed, threads or cpu_count(), seconds, burst_seconds=BURST_SHARE * seconds, idle_seconds=IDLE_S,
            progress=lambda _, share: progress(round(100 * share), 100),
        )  # fmt: skip
    holds = "not known: reading a graph needs the Python module 'onnx'" if types is None else types.words
    top = {"model": str(path), "target": target, "of": "runs", "holds": holds}
    return {**top, **found.model_dump(), "size_bytes": _size(path)}


def _size(path: Path) -> int:
    """Of the file, with an IR's weights beside it."""
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if path.suffix == ".xml" and weights.is_file() else 0)


def _write_html(record: dict[str, Any], path: Path) -> None:
    from rsedge.devices.onboard.job import LAYER_RUNS
    from rsedge.reports.html import write_layers_html
    from rsedge.reports.schema import LayerProfile

    remote = record.get("remote")
    place = f"{remote['address']} ({remote['device']['model']})" if remote else record["device"]
    profile = LayerProfile(
        name=record["target"],
        runtime=f"{record['runtime']} {record['runtime_version']}",
        device=place,
        precision=record["precision"] or "",
        threads=record["threads"],
        runs=LAYER_RUNS,
        layers=(remote or record)["layers"],
    )
    write_layers_html(record["target"], [profile], path)


def _here(
    bundle: Bundle, key: Path | None, threads: int | None, seconds: float, layers: bool, shown: Any
) -> dict[str, Any]:
    from rsedge.devices.measure.protocol import measure
    from rsedge.devices.measure.rss import bundle_peak_rss
    from rsedge.devices.measure.subject import opened_subject
    from rsedge.runtimes.session import cpu_count

    used = threads or cpu_count()
    with opened_subject(bundle, used) as subject:
        measured = measure(
            subject.run,
            subject.inputs,
            seconds=seconds,
            threads=used,
            progress=lambda _, share: shown(share),
            burst_seconds=BURST_SHARE * seconds,
            idle_seconds=IDLE_S,
            labels=subject.labels,
        )
    record = {**measured.model_dump(), "peak_rss_bytes": bundle_peak_rss(bundle.path, key, used)}
    if layers:
        from rsedge.devices.measure.layers import profile_layers

        record["layers"] = profile_layers(bundle, used)
    return record


def _there(
    bundle: Bundle,
    on: str,
    threads: int | None,
    seconds: float,
    layers: bool,
    python: str,
    reconnect: float,
    shown: Any,
) -> dict[str, Any]:
    from rsedge.devices.remote.bench import Settings, bench_remote
    from rsedge.devices.remote.job import Options
    from rsedge.devices.remote.ssh import Address

    settings = Settings(
        seconds=seconds, threads=threads, layers=layers, burst_seconds=BURST_SHARE * seconds, idle_seconds=IDLE_S
    )
    options = dataclasses.replace(Options(), python=python, reconnect_s=reconnect)
    return bench_remote(bundle, Address.parse(on), settings, options, lambda _, share: shown(share))


def _print_record(record: dict[str, Any]) -> None:
    latency, remote = record["latency_ms"], record.get("remote")
    threads = f", {record['threads']} threads" if record["threads"] else ""
    place = f"{remote['address']} ({remote['device']['model']}), " if remote else ""
    typer.echo(
        f"{record['target']} on {place}{record['device']}, {record['runtime']} {record['runtime_version']}{threads}: "
        f"p50 {latency['p50']:.2f} ms, p90 {latency['p90']:.2f} ms, p99 {latency['p99']:.2f} ms, "
        f"{record['throughput_per_s']:.1f} {record['of']}/s{_memory_text(record)} "
        f"(n = {record['n']}, measured{', noisy' if record['noisy'] else ''})"
    )
    if "holds" in record:
        typer.echo(f"the file holds: {record['holds']}; computed in: {record['precision']}")
    if burst := record["bursty"]:
        typer.echo(
            f"bursts of {burst['runs_per_burst']} after pauses of {burst['gap_ms']:.0f} ms: p50 "
            f"{burst['latency_ms']['p50']:.2f} ms, p99 {burst['latency_ms']['p99']:.2f} ms, first run after a pause p50 "
            f"{burst['first_ms']['p50']:.2f} ms"
        )
    if energy := record["energy"]:
        above = energy["joules_per_item_above_idle"]
        rest = "" if above is None else f", {above * 1e3:.3g} mJ above idle"
        typer.echo(f"energy: {energy['joules_per_item'] * 1e3:.3g} mJ per tile{rest} ({energy['covers']})")
    for title, rows in (("layers", record.get("layers")), ("layers", (remote or {}).get("layers"))):
        if rows:
            _print_layers(title, rows)
    _print_warnings(record, remote)


def _memory_text(record: dict[str, Any]) -> str:
    peak = record.get("peak_rss_bytes")
    return "" if peak is None else f", peak memory {peak / 2**20:.0f} MiB"


def _print_warnings(record: dict[str, Any], remote: dict[str, Any] | None) -> None:
    if record["noisy"]:
        typer.echo("noisy: p90 is far above p50, other work loads this device", err=True)
    if record["throttling"] and record["throttling"]["detected"]:
        typer.echo("slowed down while measured: " + "; ".join(record["throttling"]["reasons"]), err=True)
    if remote is None:
        return
    if not remote["golden"]["passed"]:
        worst = remote["golden"]["max_abs_difference"]
        typer.echo(
            f"the golden vector fails on this device: largest difference {worst:.3g}; do not fly it there", err=True
        )
    if remote["clock"]["off"]:
        off = remote["clock"]["device_minus_host_s"]
        typer.echo(f"the device's clock is {off:+.0f} s off; durations are monotonic and not touched by that", err=True)
    for name in remote["unreadable_counters"]:
        typer.echo(f"energy counter {name} is there but only root may read it on the device", err=True)


def _print_layers(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    total = sum(r["ms"] for r in rows) or 1.0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (title, "type", "kernel", "ms", "share"):
        table.add_column(column, overflow="fold", justify="right" if column in ("ms", "share") else "left")
    for row in sorted(rows, key=lambda r: -r["ms"])[:LAYERS_SHOWN]:
        cells = (row["name"], row["type"], row["kernel"], f"{row['ms']:.3f}", f"{row['ms'] / total:.1%}")
        table.add_row(*map(Text, cells))
    Console().print(table)
    if len(rows) > LAYERS_SHOWN:
        typer.echo(f"{len(rows) - LAYERS_SHOWN} more layers, see --json")
