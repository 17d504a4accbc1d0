"""``rsedge latency``: what a model takes on many targets, in one table and picture."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsedge.cli.common import check_page, print_json, progress_bar, unwrapped
from rsedge.cli.heed import refuse_without
from rsedge.cli.options import Json, Key, Threads
from rsedge.cli.tables import add, show, table
from rsedge.data.document_check import nearest
from rsedge.data.errors import PartlyDone, RequestError
from rsedge.data.temporary import TemporaryFolder

if TYPE_CHECKING:
    from rsedge.devices.table.rows import LatencyTable, Model
    from rsedge.devices.table.there import Host

TIMM = "timm:"
EDGE = 224
DEFAULT = "openvino-cpu-f32"


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("latency", help=unwrapped(latency.__doc__ or ""))(latency)


def latency(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="ONNX file, OpenVINO IR (.xml), bundle, or timm:NAME (random weights; timm:NAME@384 for 384 pixels).",
        ),
    ],
    on: Annotated[
        list[str] | None,
        typer.Option(
            "--on", metavar="A,B,C", help="Targets, e.g. openvino-cpu-f32,tensorrt-jetson-orin-nano-8gb-fp16."
        ),
    ] = None,
    profile: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A device profile of your own (.yaml).")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="TARGET", help="Say of each target how many times as long it takes.")
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="[DEVICE=]ssh://[user@]host[:port]",
            help="Measure a bundle's target of this device over SSH; more than once for several devices.",
        ),
    ] = None,
    remote_python: Annotated[
        str, typer.Option(metavar="PYTHON", help="With --host: the device's interpreter that has the runtime.")
    ] = "python3",
    threads: Threads = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each target is timed that is this machine.")] = 3.0,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write it as one page with a picture.")] = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Latency, memory and energy of a model on many targets: measured where it can be, else predicted, and said so.

    Targets of the device 'cpu' are timed on this machine, where the file computes in their precision (a float file has no INT8
    time); a bundle's own target is as the bundle recorded it, where it is another device; everything else is predicted from the
    ONNX graph, with an interval and what it rests on. With --host a bundle is sent to a device and measured there; a host that
    fails is listed, and its targets are reported as without it: recorded or predicted. `rsedge devices` lists devices,
    `rsedge devices calibrate` makes predictions better.

    Where a target has no figure, or a host measured nothing, the others are reported and the exit code is 5; where no target has a
    figure, it is that of the first reason.

    Examples:

        rsedge latency model.onnx --on openvino-cpu-f32,openvino-cpu-bf16,tensorrt-jetson-orin-nano-8gb-int8 --html latency.html

        rsedge latency runs/quickstart/bundles/tensorrt-jetson-orin-nano-8gb-fp16 --on tensorrt-jetson-orin-nano-8gb-fp16 --host ssh://me@jetson

        rsedge latency timm:resnet50 --on openvino-cpu-f32,openvino-intel-npu-int8 --baseline openvino-cpu-f32
    """
    from rsedge.devices.table.rows import latency_table
    from rsedge.runtimes.cores import cpu_count
    from rsedge.runtimes.inference.outputs import check_outputs

    if not host:
        refuse_without(context, ["remote_python"], "--host")
    targets = [name.strip() for given in on or [DEFAULT] for name in given.split(",") if name.strip()]
    check_outputs([html], [key, *([] if model.startswith(TIMM) else [Path(model)])])
    check_page(html, "rsedge latency")
    hosts = _hosts(host or [], targets, remote_python)
    with _opened(model, key) as opened, progress_bar("targets", quiet=as_json) as progress:
        found = latency_table(
            opened, targets, threads or cpu_count(), seconds, baseline, profile or (), progress, hosts
        )
    if html is not None:
        from rsedge.reports.html import write_latency_html

        write_latency_html(found, html)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _print(found)
    if not found.complete:
        raise typer.Exit(PartlyDone.exit_code)


def _hosts(given: list[str], targets: list[str], python: str) -> list[Host]:
    from rsedge.devices.remote.job import Options
    from rsedge.devices.table.there import Host, check_hosts
    from rsedge.runtimes.bundle.manifest import Target

    if not given:
        return []
    devices = [d for d in dict.fromkeys(Target.parse(name).device for name in targets) if d != "cpu"]
    options = dataclasses.replace(Options(), python=python)
    found = [Host.parse(one, devices, options) for one in given]
    check_hosts(found)
    return found


@contextlib.contextmanager
def _opened(model: str, key: Path | None) -> Iterator[Model]:
    from rsedge.devices.table.rows import open_model

    if not model.startswith(TIMM):
        with open_model(Path(model), key) as opened:
            yield opened
        return
    if key is not None:
        raise RequestError(f"{model}: --key is for bundles; leave it out")
    with TemporaryFolder() as folder, open_model(_timm(model, Path(folder)), key, model) as opened:
        yield opened


def _timm(model: str, folder: Path) -> Path:
    """A network of timm with random weights as ONNX."""
    import timm
    import torch

    name, _, edge = model.removeprefix(TIMM).partition("@")
    if not timm.is_model(name):
        raise RequestError(f"{model}: timm has no network '{name}'{nearest(name, timm.list_models())}")
    if edge and not edge.isdigit():
        raise RequestError(f"{model}: write the edge in pixels behind the @, e.g. timm:resnet50@384")
    size, path = int(edge or EDGE), folder / f"{name}.onnx"
    torch.manual_seed(0)
    net = timm.create_model(name, pretrained=False, exportable=True).eval()
    try:
        torch.onnx.export(net, (torch.zeros(1, 3, size, size),), str(path), opset_version=17, dynamo=False)
    except (RuntimeError, AssertionError, ValueError) as error:
        line = str(error).strip().splitlines()[-1]
        raise RequestError(f"{model}: cannot be exported at {size} pixels: {line}") from error
    return path


def _print(found: LatencyTable) -> None:
    from rsedge.reports.latency import energy_text

    base = [] if found.baseline is None else [f"over {found.baseline}"]
    rows = table("target", "latency", "p90", "p99", *base, "memory", "energy", "what it rests on")
    for row in found.rows:
        word = "predicted " if row.provenance == "predicted" else ""
        over = found.over_baseline(row)
        add(
            rows, row.target, row.words + (" (noisy)" if row.noisy else ""), _ms(row.p90_ms), _ms(row.p99_ms),
            *([] if over is None else [over]), "" if row.memory_mb is None else f"{word}{row.memory_mb:.0f} MB",
            energy_text(row.energy), "; ".join([row.basis, *(f"outside the evidence: {o}" for o in row.outside)]),
        )  # fmt: skip
    show(rows)
    for one in found.left_out:
        typer.echo(f"{one.target}: no figure: {one.why}", err=True)
    for failed in found.failed_hosts:
        typer.echo(f"{failed.target}: not measured at {failed.host}: {failed.why}", err=True)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} ms"
