"""``rsedge bench``: a bundle's latency, throughput, memory and energy, on this machine or on a device over SSH."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsedge.cli.common import opened_bundle, print_json, progress_bar, unwrapped
from rsedge.cli.heed import refuse_unheeded, refuse_without
from rsedge.cli.options import BundlePath, Json, Key, Threads
from rsedge.data.errors import RequestError
from rsedge.data.metrics.verdict import verdict_record, verdict_text

if TYPE_CHECKING:
    from rsedge.runtimes.bundle.reading import Bundle

BURST_SHARE, IDLE_S = 0.4, 1.0
LAYERS_SHOWN = 30


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("bench", help=unwrapped(bench.__doc__ or ""))(bench)


def bench(
    context: typer.Context,
    bundle: BundlePath,
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
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Measure latency, throughput, memory and, where power rails are readable, energy of a bundle, batch 1.

    p50 is the typical latency, p90 and p99 what the slow tiles take: plan with those. Close other programs first.

    With --on the bundle is measured on a device over SSH: it needs a Python 3.8 or newer with NumPy and the bundle's
    runtime (TensorRT as JetPack brings it), nothing of rsedge. TensorRT engines are built there. Start the same command
    again after a lost link and it goes on; nothing stays on the device.

    Examples:

        rsedge bench runs/quickstart/bundles/openvino-cpu-int8 --threads 2 --seconds 10 --layers

        rsedge bench runs/quickstart/bundles/tensorrt-jetson-orin-nano-8gb-fp16 --on ssh://me@jetson.local
    """
    from rsedge.runtimes.inference.outputs import check_outputs

    if not layers:
        refuse_without(context, ["html"], "--layers")
    if on is None:
        refuse_without(context, ["remote_python", "reconnect"], "--on")
    check_outputs([html], [bundle, key])
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
    from rsedge.runtimes.session import cpu_count

    used = threads or cpu_count()
    with _opened(bundle, used) as (run, inputs, labels):
        measured = measure(
            run,
            inputs,
            seconds=seconds,
            threads=used,
            progress=lambda _, share: shown(share),
            burst_seconds=BURST_SHARE * seconds,
            idle_seconds=IDLE_S,
            labels=labels,
        )
    record = {**measured.model_dump(), "peak_rss_bytes": bundle_peak_rss(bundle.path, key, used)}
    if layers:
        from rsedge.devices.measure.layers import profile_layers

        record["layers"] = profile_layers(bundle, used)
    return record


@contextlib.contextmanager
def _opened(bundle: Bundle, threads: int) -> Iterator[tuple[Any, dict[str, Any], dict[str, str] | None]]:
    """What runs, what it is given, and labels where it cannot tell its own: a tile, or a sample through all parts."""
    from rsedge.runtimes.session import INPUT

    if bundle.manifest.parts is None:
        with contextlib.closing(bundle.session(threads)) as session:
            yield session, {INPUT: bundle.golden()[INPUT][:1]}, None
        return
    from rsedge.runtimes.bundle.whole import golden_sample, open_whole

    with open_whole(bundle, threads, every=0) as whole:
        sample = golden_sample(bundle)[0]
        # A sample's own axes are no batch: it is no input of what is measured.
        yield lambda _nothing: whole(sample), {}, {**whole.labels, "precision": bundle.target.precision}


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
        f"{record['throughput_per_s']:.1f} {record['of']}/s, peak memory {record['peak_rss_bytes'] / 2**20:.0f} MiB "
        f"(n = {record['n']}, measured{', noisy' if record['noisy'] else ''})"
    )
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
