"""``rsedge devices predict`` and ``rsedge devices calibrate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsedge.cli import complete
from rsedge.cli.heed import refuse_without
from rsedge.cli.tables import add, show, table
from rsedge.data.document_check import nearest
from rsedge.data.errors import MissingCapability, PartlyDone, RequestError, RsedgeError
from rsedge.data.temporary import TemporaryFolder
from rsedge.runtimes.precision import PrecisionName
from rsedge.runtimes.registry import RuntimeName, runtime_names

if TYPE_CHECKING:
    from rsedge.devices.predict.calibrate import Calibrated
    from rsedge.devices.predict.latency import Prediction
    from rsedge.devices.profiles.profile import DeviceProfile

Progress = Callable[[str, int, int], None]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def register(devices: typer.Typer) -> None:
    """Adds the commands to ``rsedge devices``."""
    devices.command("predict")(predict_device)
    devices.command("calibrate")(calibrate_device)


def predict_device(
    model: Annotated[Path, typer.Argument(help="An ONNX file with fixed input shapes.")],
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            autocompletion=complete.targets,
            help="<runtime>-<device>-<precision>, e.g. tensorrt-jetson-orin-nano-8gb-fp16; one or more.",
        ),
    ],
    profile: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A device profile of your own (.yaml); more than once: these."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict latency and memory of an ONNX file on targets: an interval each, and what it rests on.

    A target that cannot be predicted is listed with the reason, and the others are reported (exit 5). `rsedge latency` puts
    measured and predicted targets into one table and picture.

    Examples:

        rsedge devices predict model.onnx openvino-atom-x7425e-int8 tensorrt-jetson-orin-nano-8gb-fp16
    """
    from rsedge.devices.predict.latency import predict_target
    from rsedge.devices.predict.onnx_graph import foreign

    found: dict[str, Prediction] = {}
    left_out: dict[str, RsedgeError] = {}
    checked = foreign(model)
    for target in dict.fromkeys(targets):
        try:
            found[target] = predict_target(checked, target, profile or [])
        except (RequestError, MissingCapability) as error:
            left_out[target] = error
    if not found:
        raise next(iter(left_out.values()))
    if as_json:
        predictions = [{"target": target, **one.model_dump(mode="json")} for target, one in found.items()]
        missing = {target: str(error) for target, error in left_out.items()}
        typer.echo(json.dumps({"predictions": predictions, "left_out": missing}, allow_nan=False))
    else:
        for target, one in found.items():
            _print_prediction(target, one)
    for target, why in left_out.items():
        typer.echo(f"{target}: no prediction: {why}", err=True)
    if left_out:
        raise typer.Exit(PartlyDone.exit_code)


def _print_prediction(target: str, found: Prediction) -> None:
    typer.echo(
        f"{target}: {found} on {found.device}, middle predicted {found.mid_ms:.2f} ms; memory predicted {found.memory_mb:.0f} MB"
    )
    for reason in found.outside:
        typer.echo(f"wider, outside the evidence: {reason}")
    shares = table("part", "share of the predicted time")
    for part, share in sorted(found.share.items(), key=lambda item: -item[1]):
        add(shares, part, f"{share:.1%}")
    show(shares)
    typer.echo(found.basis)


def calibrate_device(
    context: typer.Context,
    runtime: Annotated[
        str | None, typer.Option(help="Runtime whose figures are fitted; openvino here, with --on the device's first.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Inference threads; all usable cores by default.")] = None,
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="ssh://[user@]host[:port][/folder]", help="Calibrate this device instead."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.devices,
            help="With --on: the device's profile; its processor as detected by default.",
        ),
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="Precision to fit, can be given again; all by default.")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="Network of the suite to measure, can be given again; all by default.")
    ] = None,
    remote_python: Annotated[
        str, typer.Option(metavar="PYTHON", help="With --on: the device's interpreter that has the runtime.")
    ] = "python3",
    as_json: Json = False,
) -> None:
    """Measure the calibration suite (minutes) here or on a device over SSH, and refit that device's predictions.

    Here it is the device 'cpu', with OpenVINO. With --on the suite goes to the device as `rsedge bench --on` sends a
    bundle; a TensorRT device builds an engine of every network.

    Examples:

        rsedge devices calibrate

        rsedge devices calibrate --on ssh://me@jetson.local --device jetson-orin-nano-8gb
    """
    from rsedge.devices.predict.calibrate import HERE
    from rsedge.devices.predict.efficiency import calibration_path, write_calibration
    from rsedge.devices.profiles.profile import keep_profile, shipped_names

    if on is None:
        refuse_without(context, ["remote_python"], "--on")
    if on is None and (device not in (None, "cpu") or runtime not in (None, HERE)):
        raise RequestError(
            f"without --on the device 'cpu' is calibrated with {HERE}; another needs --on ssh://user@host"
        )
    profile, used, found = (
        _calibrated_here(threads, precision, network, _progress(as_json))
        if on is None
        else _calibrated_there(on, device, runtime, threads, precision, network, remote_python, _progress(as_json))
    )
    path = calibration_path(profile.name, used)
    write_calibration(found.efficiencies, path)
    record: dict[str, Any] = {
        "file": str(path),
        "device": profile.name,
        "runtime": used,
        "networks": len(found.residuals),
        "spread": found.efficiencies.spread.known.value,
        "calibrated_on": found.efficiencies.calibrated_on,
    }
    if profile.name not in shipped_names():
        record["profile"] = str(keep_profile(profile))
    if as_json:
        typer.echo(json.dumps(record))
        return
    typer.echo(
        f"fitted {record['networks']} networks measured on {record['calibrated_on']}, interval x/÷ "
        f"{record['spread']:.2f}; predictions for {profile.name} now use {path}"
    )
    if own := record.get("profile"):
        typer.echo(f"its profile is {own}: rsedge devices predict ONNX {used}-{profile.name}-f32")
    if found.load_average > 0.5:
        typer.echo(f"it was busy (load average {found.load_average:.1f}): calibrate again when it is quiet")


def _calibrated_here(
    threads: int | None, precisions: list[str] | None, networks: list[str] | None, progress: Progress | None
) -> tuple[DeviceProfile, RuntimeName, Calibrated]:
    from rsedge.devices.predict.calibrate import HERE, calibrate
    from rsedge.devices.profiles.cpu import detect_cpu
    from rsedge.devices.profiles.profile import load_profile

    profile = load_profile("cpu")
    with TemporaryFolder() as folder:
        found = calibrate(
            profile,
            HERE,
            _precisions(profile, HERE, precisions),
            folder,
            threads=threads or detect_cpu().usable_threads,
            networks=_networks(networks),
            progress=progress,
        )
    return profile, HERE, found


def _calibrated_there(
    on: str,
    device: str | None,
    runtime: str | None,
    threads: int | None,
    precisions: list[str] | None,
    networks: list[str] | None,
    python: str,
    progress: Progress | None,
) -> tuple[DeviceProfile, RuntimeName, Calibrated]:
    from rsedge.devices.predict.calibrate import calibrate
    from rsedge.devices.remote.job import Options
    from rsedge.devices.remote.ssh import Address
    from rsedge.devices.remote.suite import remote_suite

    wanted, chosen = _runtime(runtime), _networks(networks)
    suite = remote_suite(Address.parse(on), device, wanted, Options(python=python))
    with TemporaryFolder() as folder:
        found = calibrate(
            suite.profile,
            suite.runtime,
            _precisions(suite.profile, suite.runtime, precisions),
            folder,
            threads=threads or suite.threads,
            measure=suite,
            place=suite.place,
            version=suite.version,
            networks=chosen,
            progress=progress,
        )
    return suite.profile, suite.runtime, found


def _runtime(name: str | None) -> RuntimeName | None:
    if name is not None and name not in runtime_names():
        known = runtime_names()
        raise RequestError(f"unknown runtime '{name}'{nearest(name, known)}; known: {', '.join(known)}")
    return name


def _precisions(profile: DeviceProfile, runtime: RuntimeName, given: list[str] | None) -> list[PrecisionName]:
    able = {str(p): p for p in profile.runtimes[runtime]}
    for name in given or ():
        if name not in able:
            raise RequestError(f"device '{profile.name}' does not run {name} on {runtime}; known: {', '.join(able)}")
    return [able[name] for name in given or able]


def _networks(given: list[str] | None) -> tuple[str, ...] | None:
    from rsedge.devices.predict.suite import NETS

    for name in given or ():
        if name not in NETS:
            raise RequestError(
                f"the suite has no network '{name}'{nearest(name, list(NETS))}; known: {', '.join(NETS)}"
            )
    return tuple(given) if given else None


def _progress(quiet: bool) -> Progress | None:
    if quiet or not sys.stderr.isatty():
        return None
    return lambda what, done, of: print(f"\r{what}: {done}/{of}", end="\n" if done == of else "", file=sys.stderr)
