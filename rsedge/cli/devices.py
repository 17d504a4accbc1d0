"""``rsedge devices`` and ``rsedge doctor``: what targets exist, and what this machine has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsedge.cli import complete
from rsedge.cli import predict as cli_predict
from rsedge.cli.heed import refuse_without
from rsedge.cli.tables import add as _add
from rsedge.cli.tables import show as _print
from rsedge.cli.tables import table as _table

if TYPE_CHECKING:
    from rsedge.devices.profiles.profile import DeviceProfile

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    devices = typer.Typer(help="List the devices that targets can name, or show one.")
    devices.callback(invoke_without_command=True)(list_devices)
    devices.command("show")(show_device)
    devices.command("check")(check_device)
    devices.command("add")(add_device)
    devices.command("remove")(remove_device)
    cli_predict.register(devices)
    app.add_typer(devices, name="devices")
    app.command("doctor")(doctor)


def list_devices(context: typer.Context, as_json: Json = False) -> None:
    """List the devices that targets can name; `rsedge devices show NAME` for one."""
    if context.invoked_subcommand is not None:
        return
    from rsedge.devices.profiles.profile import load_profile, profile_names

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
        str,
        typer.Argument(
            autocompletion=complete.devices,
            help="A device that `rsedge devices` lists, or a profile of your own (.yaml).",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show one device: what it runs, its figures with where they come from, software and power modes."""
    from rsedge.devices.profiles.profile import load_profile

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
    for label, value in (("cpu", profile.host_cpu), ("dla", _dla_text(profile)), ("isa", " ".join(profile.isa))):
        if value:
            typer.echo(f"{label}: {value}")
    for note in profile.notes:
        typer.echo(f"note: {note}")


def check_device(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            autocompletion=complete.targets,
            help="<runtime>-<device>-<precision>, e.g. tensorrt-jetson-orin-nano-8gb-fp16.",
        ),
    ],
    profile: Annotated[Path | None, typer.Option(metavar="FILE", help="A device profile of your own (.yaml).")] = None,
    release: Annotated[
        str | None, typer.Option(help="Software release, e.g. 'JetPack 5.1.2'; else the default.")
    ] = None,
    opset: Annotated[int | None, typer.Option(help="ONNX opset that the model is to have.")] = None,
    power_mode: Annotated[str | None, typer.Option(help="A power mode of the device.")] = None,
    dla: Annotated[bool, typer.Option("--dla", help="Run on the deep-learning accelerator of a Jetson.")] = False,
    onnx: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The model, to hold against what a DLA has.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether a target can exist, before any work: exit code 2 with what would be possible where it cannot.

    Example:

        rsedge devices check tensorrt-jetson-orin-nx-16gb-fp16 --dla --onnx student.onnx
    """
    from rsedge.devices.predict.dla import check_dla
    from rsedge.devices.predict.onnx_graph import foreign
    from rsedge.devices.profiles.power import in_power_mode
    from rsedge.devices.profiles.profile import check_target
    from rsedge.runtimes.bundle.manifest import Target

    if not dla:
        refuse_without(context, ["onnx"], "--dla")
    parsed = Target.parse(target)
    found = check_target(target, opset=opset, release=release, profiles=[profile] if profile else [])
    if dla:
        check_dla(found, parsed.precision, release, None if onnx is None else foreign(onnx))
    scaled, software = in_power_mode(found, power_mode), found.software_for(parsed.runtime, release)
    record = {
        "target": target,
        "possible": True,
        "release": software.release if software else None,
        "opset": opset or (software.opset if software else None),
        "precision_set_by": software.precision_mechanism if software else None,
        "power_mode": scaled.default_power_mode,
        "dense_peak_tops": scaled.peak_tops(parsed.precision),
        "bandwidth_gb_s": scaled.bandwidth_gb_s.value,
        "dla": dla,
    }
    if as_json:
        typer.echo(json.dumps(record))
        return
    typer.echo(
        f"{target}: possible with {record['release'] or 'its runtime'}, opset {record['opset']}; dense peak "
        f"{record['dense_peak_tops']:.3g} TOPS, {record['bandwidth_gb_s']:.3g} GB/s"
        + (f" in power mode {record['power_mode']}" if record["power_mode"] else "")
    )


def add_device(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A device profile of your own (.yaml).")],
    as_json: Json = False,
) -> None:
    """Add a device of your own: from now on recipes and all commands know its targets by name.

    A whole copy is kept beside what devices were calibrated to; add the file again after a change.

    Example:

        rsedge devices add our-board.yaml
    """
    from rsedge.devices.profiles.profile import add_profile

    added, kept = add_profile(file)
    if as_json:
        typer.echo(json.dumps({**_summary(added), "file": str(kept)}))
        return
    typer.echo(f"added {added.name}: {', '.join(added.possible_targets())}\nkept in {kept}")


def remove_device(
    name: Annotated[str, typer.Argument(autocompletion=complete.devices, help="A device that was added here.")],
    as_json: Json = False,
) -> None:
    """Remove a device that was added; what it was calibrated to stays."""
    from rsedge.devices.profiles.own import remove

    gone = remove(name)
    typer.echo(json.dumps({"removed": name, "file": str(gone)}) if as_json else f"removed {name} ({gone})")


def _dla_text(profile: DeviceProfile) -> str:
    dla = profile.dla
    if dla is None:
        return ""
    tops = f"{dla.int8_tops.value:g} dense int8 TOPS in all ({dla.int8_tops.source})"
    return f"{dla.cores}x NVDLA {dla.version}, {tops}; convolutional networks only"


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
    if profile.idle_w:
        _add(table, "idle power", f"{profile.idle_w.value:g} W", profile.idle_w.source)
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
