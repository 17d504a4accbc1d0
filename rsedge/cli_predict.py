"""``rsedge devices predict`` and ``rsedge devices calibrate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from rsedge.tables import add, show, table

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def register(devices: typer.Typer) -> None:
    """Adds the commands to ``rsedge devices``."""
    devices.command("predict")(predict_device)
    devices.command("calibrate")(calibrate_device)


def predict_device(
    model: Annotated[Path, typer.Argument(help="An ONNX file with fixed input shapes.")],
    target: Annotated[
        str, typer.Argument(help="<runtime>-<device>-<precision>, e.g. tensorrt-jetson-orin-nano-8gb-fp16.")
    ],
    as_json: Json = False,
) -> None:
    """Predict latency and memory of an ONNX file on a target: an interval, and what it rests on."""
    from rsedge.devices.predict import predict_target

    found = predict_target(model, target)
    if as_json:
        typer.echo(found.model_dump_json())
        return
    typer.echo(
        f"{found} on {found.device}, middle predicted {found.mid_ms:.2f} ms; memory predicted {found.memory_mb:.0f} MB"
    )
    for reason in found.outside:
        typer.echo(f"wider, outside the evidence: {reason}")
    shares = table("part", "share of the predicted time")
    for part, share in sorted(found.share.items(), key=lambda item: -item[1]):
        add(shares, part, f"{share:.1%}")
    show(shares)
    typer.echo(found.basis)


def calibrate_device(
    runtime: Annotated[str, typer.Option(help="Runtime whose figures are fitted; measured is openvino.")] = "openvino",
    threads: Annotated[int | None, typer.Option(min=1, help="Inference threads; all usable cores by default.")] = None,
    as_json: Json = False,
) -> None:
    """Measure the calibration suite on this machine (minutes) and refit the predictions for the device 'cpu'."""
    import tempfile

    from rsedge.data.errors import RequestError
    from rsedge.devices.calibrate import calibrate
    from rsedge.devices.cpu import detect_cpu
    from rsedge.devices.efficiency import calibration_path, write_calibration
    from rsedge.devices.profile import load_profile

    if runtime != "openvino":
        raise RequestError(f"runtime '{runtime}' cannot be calibrated here; known: openvino")
    profile, used = load_profile("cpu"), threads or detect_cpu().usable_threads
    with tempfile.TemporaryDirectory() as folder:
        found = calibrate(
            profile, "openvino", profile.runtimes["openvino"], Path(folder), threads=used, progress=_progress(as_json)
        )
    path = calibration_path(profile.name, "openvino")
    write_calibration(found.efficiencies, path)
    spread = found.efficiencies.spread.known.value
    if as_json:
        typer.echo(json.dumps({"file": str(path), "networks": len(found.residuals), "spread": spread}))
        return
    typer.echo(f"fitted {len(found.residuals)} networks, interval x/÷ {spread:.2f}; predictions for cpu now use {path}")
    if found.load_average > 0.5:
        typer.echo(f"the machine was busy (load average {found.load_average:.1f}): calibrate again when it is quiet")


def _progress(quiet: bool) -> Callable[[str, int, int], None] | None:
    if quiet or not sys.stderr.isatty():
        return None
    return lambda what, done, of: print(f"\r{what}: {done}/{of}", end="\n" if done == of else "", file=sys.stderr)
