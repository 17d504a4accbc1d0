"""``rsedge soak``: whether a bundle keeps a deadline for minutes or hours; needs no torch."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsedge.cli.common import check_page, opened_bundle, print_json, progress_bar, unwrapped
from rsedge.cli.heed import refuse_unheeded
from rsedge.cli.options import BundlePath, Json, Key, Threads

if TYPE_CHECKING:
    from rsedge.devices.measure.soak import Percentile, Soak
    from rsedge.runtimes.bundle.reading import Bundle


MARK = b'"asked_s":'
"""A field that records of soaks have, and no other file of ours."""


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("soak", help=unwrapped(soak.__doc__ or ""))(soak)


def soak(
    context: typer.Context,
    bundle: BundlePath,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to run.")] = 600.0,
    period_ms: Annotated[
        float | None,
        typer.Option(metavar="P", min=0.001, help="A tile is due every P milliseconds; back to back when not given."),
    ] = None,
    threads: Threads = None,
    f32: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE",
            help="The same recipe's f32 bundle, to state the score beside its own; the one that lies beside it when not given.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE",
            help="Keep the record as JSON; as soak/TARGET.json of a run folder the run's report shows it.",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write latency over time as one page.")] = None,
    key: Key = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Run a bundle for minutes: does it keep its deadline, does it slow down, does memory grow?

    Latency is said as p50 to p99.9 with 95 % bounds that assume no distribution; p99.9 has an upper bound after 3,688 runs. With
    --period-ms a tile that ends after the next one is due is late, and a period that passes while another tile runs is skipped:
    both are missed. The 90th percentile is also stated as MLPerf's single-stream scenario does, by its early stopping estimate
    (99 % confidence, from 64 runs on). Bounds take runs as independent: where slow runs come in bursts, look at the plot (--html).

    Ctrl-C ends it early with what it has. The numbers of the last run are held against those of the first, bit for bit.

    Examples:

        rsedge soak runs/quickstart/bundles/openvino-cpu-int8 --seconds 600 --period-ms 20

        rsedge soak runs/quickstart/bundles/openvino-cpu-int8 --output runs/quickstart/soak/openvino-cpu-int8.json --html soak.html
    """
    from rsedge.data.files import write_json
    from rsedge.devices.measure.soak import check_soak
    from rsedge.devices.measure.soak import soak as measured
    from rsedge.runtimes.inference.outputs import check_outputs, check_replaces
    from rsedge.runtimes.session import cpu_count
    from rsedge.stopping import finishing

    check_soak(seconds, period_ms)
    check_outputs([output, html], [bundle, key, f32])
    check_page(html, "rsedge soak")
    if output is not None:
        check_replaces(output, MARK, "rsedge soak --output")
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(opened_bundle(bundle, key))
        refuse_unheeded(context, opened)
        beside = _f32(stack, opened, f32, key)
        ended = stack.enter_context(finishing())
        progress = stack.enter_context(progress_bar("soaking", quiet=as_json))
        found = measured(
            opened,
            threads or cpu_count(),
            seconds,
            period_ms,
            beside,
            ended,
            lambda share: progress(round(1e3 * share), 1000),
        )
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, found.model_dump(mode="json"))
    if html is not None:
        from rsedge.reports.html import write_soak_html

        write_soak_html(found, html)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    typer.echo("\n".join(lines(found)))


def _f32(stack: contextlib.ExitStack, opened: Bundle, given: Path | None, key: Path | None) -> Bundle | None:
    """The f32 bundle that was named, or the one beside this."""
    from rsedge.devices.measure.soak import f32_beside

    place = given or f32_beside(opened)
    return None if place is None else stack.enter_context(opened_bundle(place, key))


def lines(found: Soak) -> list[str]:
    """What was found, for a terminal."""
    pace = "back to back" if found.period_ms is None else f"one every {found.period_ms:g} ms"
    early = f", ended early of {found.asked_s:g}" if found.ended_early else ""
    return [
        f"{found.target} on {found.device}, {found.runtime} {found.runtime_version}, {found.threads} threads: "
        f"{found.n:,} {found.of}s {pace} in {found.seconds:.1f} s{early} (measured)",
        *map(_percentile, found.percentiles),
        f"worst {found.worst_ms:.2f} ms at {found.worst_at_s:.1f} s; mean {found.mean_ms:.2f} ms",
        *_deadline(found),
        _single_stream(found),
        _quality(found),
        _memory(found),
        *_machine(found),
    ]


def _percentile(one: Percentile) -> str:
    if one.high_ms is None or one.low_ms is None:
        return f"{one.name:>6} {one.ms:.2f} ms, no bounds: takes {one.needed:,} runs"
    return f"{one.name:>6} {one.ms:.2f} ms (95 % bounds {one.low_ms:.2f} to {one.high_ms:.2f})"


def _deadline(found: Soak) -> list[str]:
    if found.period_ms is None:
        return []
    shares = ", ".join(f"{one.name} {one.ms / found.period_ms:.1%}" for one in found.percentiles)
    return [
        f"missed {found.missed:,} of {found.periods:,} periods ({found.late:,} late, {found.skipped:,} skipped)",
        f"share of the period: {shares}, worst {found.worst_ms / found.period_ms:.1%}; busy {found.busy:.1%} of the time",
    ]


def _single_stream(found: Soak) -> str:
    one = found.single_stream
    how = f"as MLPerf single-stream states it (early stopping, p{100 * one.percentile:g} at {one.confidence:.0%} confidence)"
    if one.estimate_ms is None:
        return f"{how}: no estimate, takes {one.needed} runs"
    return f"{how}: {one.estimate_ms:.2f} ms"


def _quality(found: Soak) -> str:
    one = found.quality
    if one is None:
        return "quality beside f32: not told, no f32 bundle of the same recipe lies beside this one (--f32)"
    kept = "at least" if one.kept else "less than"
    return f"quality: {one.metric} {one.value:.4f} is {one.share:.2%} of f32's {one.f32:.4f}: {kept} the 99 % of MLPerf"


def _memory(found: Soak) -> str:
    m, mib = found.memory, 2**20
    return (
        f"memory {m.start / mib:.1f} MiB at the start, {m.end / mib:.1f} at the end ({m.growth / mib:+.2f}), "
        f"most {m.most / mib:.1f}; the loaded model {found.per_thread / mib:.1f} per thread"
    )


def _machine(found: Soak) -> list[str]:
    parts = [f"clock {name} {s.min:.0f} to {s.max:.0f} MHz" for name, s in found.clocks_mhz.items()]
    parts += [f"{name} {s.min:.0f} to {s.max:.0f} °C" for name, s in found.temperatures_c.items()]
    parts += [] if found.temperatures_c else ["no temperature can be read here"]
    parts += [words] if (words := found.load.words()) else []
    machine = [", ".join(parts)]
    machine += [f"slowed down: {'; '.join(found.throttling.reasons)}"] if found.throttling.detected else []
    if found.same_outputs is False:
        machine.append("the last run gave other numbers than the first: see `rsedge verify`")
    return machine
