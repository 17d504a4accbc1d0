"""``rsedge devices`` and ``rsedge doctor``: what targets exist, and what this machine has."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rsedge.devices.profile import DeviceProfile

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    devices = typer.Typer(help="List the devices that targets can name, or show one.")
    devices.callback(invoke_without_command=True)(list_devices)
    devices.command("show")(show_device)
    devices.command("predict")(predict_device)
    devices.command("calibrate")(calibrate_device)
    app.add_typer(devices, name="devices")
    app.command("doctor")(doctor)


def list_devices(context: typer.Context, as_json: Json = False) -> None:
    """List the devices that targets can name; `rsedge devices show NAME` for one."""
    if context.invoked_subcommand is not None:
        return
    from rsedge.devices.profile import load_profile, profile_names

    profiles = [load_profile(name) for name in profile_names()]
    if as_json:
        typer.echo(json.dumps({"devices": [_summary(p) for p in profiles]}))
        return
    table = _table("device", "what it is", "runtime: precisions", "dense peak", "GB/s", "memory")
    for p in profiles:
        runs = "; ".join(f"{r}: {' '.join(precisions)}" for r, precisions in p.runtimes.items())
        kind = next(k for k in ("int8", "fp16", "f32") if k in p.peaks_tops)
        peak = f"{p.peaks_tops[kind].value:g} TOPS {kind}"
        _add(table, p.name, p.title, runs, peak, f"{p.bandwidth_gb_s.value:g}", f"{p.memory_gb.value:g} GB")
    _print(table)
    typer.echo(
        "A target is <runtime>-<device>-<precision>, e.g. openvino-cpu-int8. Peaks are dense, never marketing TOPS."
    )


def _summary(profile: DeviceProfile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "title": profile.title,
        "kind": profile.kind,
        "runtimes": profile.runtimes,
        "peaks_tops": {p: peak.value for p, peak in profile.peaks_tops.items()},
        "bandwidth_gb_s": profile.bandwidth_gb_s.value,
        "memory_gb": profile.memory_gb.value,
        "measurable": profile.measurable,
        "targets": profile.possible_targets(),
    }


def show_device(
    name: Annotated[
        str, typer.Argument(help="A device that `rsedge devices` lists, or a profile of your own (.yaml).")
    ],
    as_json: Json = False,
) -> None:
    """Show one device: what it runs, its figures with where they come from, software and power modes."""
    from rsedge.devices.profile import load_profile

    profile = load_profile(name)
    if as_json:
        typer.echo(json.dumps(profile.model_dump(mode="json") | {"targets": profile.possible_targets()}))
        return
    typer.echo(f"{profile.title} ({profile.name}): {profile.summary}")
    typer.echo("targets: " + ", ".join(profile.possible_targets()))
    for precision, reason in profile.refused.items():
        typer.echo(f"no {precision}: {reason}")
    _print(_figures_table(profile))
    if profile.software:
        _print(_software_table(profile))
    if profile.power_modes:
        _print(_modes_table(profile))
    for label, value in (("cpu", profile.host_cpu), ("dla", profile.dla), ("isa", " ".join(profile.isa))):
        if value:
            typer.echo(f"{label}: {value}")
    for note in profile.notes:
        typer.echo(f"note: {note}")


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
    table = _table("part", "share of the predicted time")
    for part, share in sorted(found.share.items(), key=lambda item: -item[1]):
        _add(table, part, f"{share:.1%}")
    _print(table)
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


def doctor(as_json: Json = False) -> None:
    """Say which runtimes, versions and instruction sets this machine has, what is missing and how to install it."""
    from rsedge.devices.doctor import diagnose

    found = diagnose()
    if as_json:
        typer.echo(json.dumps(found))
        return
    cpu = found["cpu"]
    typer.echo(f"rsedge {found['rsedge']}, Python {found['python']}, {found['platform']}")
    typer.echo(f"cpu: {cpu['model']}, {cpu['cores']} cores, {' '.join(cpu['isa'])}")
    if not cpu["int8_dot_product"]:
        typer.echo("     no int8 dot product (VNNI): int8 models run, but gain less than on newer CPUs")
    memory = found["memory"]
    typer.echo(
        f"memory: {memory['total_bytes'] / 1e9:.1f} GB, {memory['available_bytes'] / 1e9:.1f} GB free; "
        f"disk: {found['disk_free_bytes'] / 1e9:.1f} GB free"
    )
    typer.echo(f"NVIDIA: {_nvidia_text(found['nvidia'])}; NPU: {', '.join(found['npu']) or 'none found'}")
    _print(_runtimes_table(found["runtimes"]))
    typer.echo("targets this machine can run: " + (", ".join(found["targets_here"]) or "none, install a runtime"))
    _print(_extras_table(found["extras"]))
    for missing in found["missing"]:
        typer.echo(f"to get {missing['what']}: {missing['command']}")


def _nvidia_text(nvidia: dict[str, Any]) -> str:
    if nvidia["jetson"]:
        return str(nvidia["jetson"])
    return f"driver {nvidia['driver']}, {', '.join(nvidia['gpus'])}" if nvidia["driver"] else "no driver found"


def _runtimes_table(runtimes: list[dict[str, Any]]) -> Any:
    table = _table("runtime", "version", "devices", "what for")
    for r in runtimes:
        state = r["version"] or ("present" if r["available"] else "missing")
        _add(table, r["name"], r["problem"] or state, ", ".join(r["devices"]), r["role"])
    return table


def _extras_table(extras: list[dict[str, Any]]) -> Any:
    table = _table("extra", "state", "missing")
    for e in extras:
        _add(table, e["name"], "complete" if e["complete"] else "missing", ", ".join(e["missing"]))
    return table


def _figures_table(profile: DeviceProfile) -> Any:
    table = _table("figure", "value", "where it comes from")
    for precision, peak in profile.peaks_tops.items():
        _add(table, f"dense peak {precision}", f"{peak.value:g} TOPS", peak.source)
    _add(table, "bandwidth", f"{profile.bandwidth_gb_s.value:g} GB/s", profile.bandwidth_gb_s.source)
    _add(table, "memory", f"{profile.memory_gb.value:g} GB", profile.memory_gb.source)
    if profile.usable_memory_gb:
        _add(table, "usable memory", f"{profile.usable_memory_gb.value:g} GB", profile.usable_memory_gb.source)
    return table


def _software_table(profile: DeviceProfile) -> Any:
    table = _table("software", "runtime", "Python", "CUDA", "opset", "precision set by")
    for s in profile.software:
        opset = f"{s.opset} (up to {s.max_opset})"
        runtime = f"{s.runtime} {s.runtime_version}"
        _add(table, s.release, runtime, s.python or "", s.cuda or "", opset, s.precision_mechanism.replace("_", " "))
    return table


def _modes_table(profile: DeviceProfile) -> Any:
    table = _table("power mode", "cap", "GPU MHz", "memory MHz", "CPU cores x MHz", "where it comes from")
    for name, mode in profile.power_modes.items():
        cpu = " x ".join(f"{v:g}" for v in (mode.cpu_cores, mode.cpu_mhz) if v)
        mark = " (assumed)" if name == profile.default_power_mode else ""
        _add(
            table,
            name + mark,
            _or_empty(mode.cap_w, " W"),
            _or_empty(mode.gpu_mhz),
            _or_empty(mode.emc_mhz),
            cpu,
            mode.source,
        )
    return table


def _or_empty(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:g}{unit}"


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _add(table: Any, *cells: str) -> None:
    """Adds a row of plain text: square brackets are not markup."""
    from rich.text import Text

    table.add_row(*map(Text, cells))


def _print(table: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(table)
