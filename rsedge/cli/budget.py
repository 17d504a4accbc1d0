"""``rsedge budget``: what a bundle means for an orbit or a flight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsedge.cli import complete
from rsedge.cli.heed import refuse_without
from rsedge.cli.tables import add, show, table
from rsedge.data.errors import RequestError

if TYPE_CHECKING:
    from rsedge.devices.mission.budget import Amount, Budget

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("budget")(budget)


def budget(
    context: typer.Context,
    bundle: Annotated[Path | None, typer.Argument(metavar="BUNDLE", help="Bundle folder or .zip.")] = None,
    device: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete.devices,
            help="A device that `rsedge devices` lists, or a profile of your own (.yaml).",
        ),
    ] = None,
    mission: Annotated[Path | None, typer.Option(metavar="M.yaml", help="The mission: an orbit or a flight.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Override one field, e.g. --set sensor.swath_km=20."),
    ] = None,
    bench: Annotated[
        Path | None, typer.Option(metavar="JSON", help="What `rsedge bench BUNDLE --json` printed on the device.")
    ] = None,
    onnx: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The model as ONNX, to predict from where the bundle has none.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="PUB", help="Public key (PEM) that must have signed the bundle.")
    ] = None,
    example: Annotated[
        str | None, typer.Option(metavar="orbit|flight", help="Write a commented mission file and leave.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where --example writes; else stdout.")] = None,
    as_json: Json = False,
) -> None:
    """Scenes per orbit or km2 per flight, watt-hours, bytes saved, and what holds the mission back.

    Latency and power come from the mission file, a bench file or the bundle's own record; what none of them states is
    predicted, and then the result is called predicted and has an interval. Every default is listed with its origin.

    Examples:

        rsedge budget --example orbit --output orbit.yaml

        rsedge budget bundle.zip --device jetson-orin-nx-16gb --mission orbit.yaml --set compute.power_mode=15W
    """
    if example is not None:
        _write_example(example, output, as_json)
        return
    refuse_without(context, ["output"], "--example")
    if bundle is None or device is None or mission is None:
        raise RequestError(
            "rsedge budget needs BUNDLE, --device and --mission; `rsedge budget --example orbit` prints a mission file"
        )
    found = _budget(bundle, device, mission, settings or [], bench, onnx, key)
    if as_json:
        typer.echo(json.dumps({"bundle": str(bundle), **found.model_dump(mode="json")}, allow_nan=False))
    else:
        _print(found)


def _budget(
    bundle: Path,
    device: str,
    mission: Path,
    settings: list[str],
    bench: Path | None,
    onnx: Path | None,
    key: Path | None,
) -> Budget:
    from rsedge.devices.mission.budget import mission_budget
    from rsedge.devices.mission.description import load_mission
    from rsedge.devices.mission.load import bundle_workload, tile_cost
    from rsedge.devices.predict.onnx_graph import foreign
    from rsedge.devices.profiles.profile import check_target, load_profile
    from rsedge.runtimes.bundle.reading import Bundle

    loaded, inputs = load_mission(mission, settings)
    profile = load_profile(device)
    with Bundle.open(bundle, key=key) as opened:
        target = opened.manifest.target
        check_target(
            f"{target.runtime}-{profile.name}-{target.precision}",
            profiles=[device] if device.endswith((".yaml", ".yml")) else [],
        )
        work = bundle_workload(opened.manifest, opened.folder, onnx, bench)
        if work.graph is not None:
            foreign(work.graph)
        return mission_budget(loaded, inputs, work, tile_cost(work, profile, loaded.compute))


def _write_example(kind: str, output: Path | None, as_json: bool) -> None:
    from rsedge.data.files import write_bytes
    from rsedge.devices.mission.description import example
    from rsedge.runtimes.inference.outputs import check_outputs

    text = example(kind)
    if output is None:
        typer.echo(json.dumps({"mission": text}) if as_json else text, nl=as_json)
        return
    check_outputs([output], replace=False)
    write_bytes(output, text.encode(), replace=False)
    typer.echo(json.dumps({"mission_file": str(output)}) if as_json else f"wrote {output}")


def _print(found: Budget) -> None:
    from rsedge.devices.mission.budget import amount_text

    predicted = found.provenance == "predicted"
    mode = f", power mode {found.power_mode}" if found.power_mode else ""
    typer.echo(f"{found.mission}: {found.target} on {found.device}{mode}")
    typer.echo(amount_text(found.result, predicted))
    typer.echo(f"bottleneck: {found.bottleneck}: {found.why}")
    for note in found.notes:
        typer.echo(f"note: {note}")
    rows = table("limit", found.result.unit, "what it is")
    for limit in found.limits:
        add(rows, limit.name, _range(limit.amount), limit.what)
    show(rows)
    typer.echo("")
    rows = table("figure", "value", "")
    add(rows, "energy of the computer", _range(found.energy_wh), f"Wh of {found.energy_available_wh:.3g} available")
    for name, amount in found.data.items():
        add(rows, f"data, {name}", _range(amount, 1e6), "MB")
    for name, amount in found.facts.items():
        add(rows, name, _range(amount), amount.unit)
    show(rows)
    typer.echo("")
    if found.assumptions:
        rows = table("assumed", "value", "usual", f"{found.result.unit} then")
        for one in found.assumptions:
            add(rows, one.name, f"{one.value:g}", f"{one.low:g} to {one.high:g}", _from_to(one.result, predicted))
        if found.assumed is not None:
            add(rows, "all together, at their worse and better ends", "", "", _from_to(found.assumed, predicted))
        show(rows)
        typer.echo(
            "give in the mission file what you know of these; until then the result is no better than they are\n"
        )
    rows = table("input", "value", "where it comes from", "what it is")
    for name, figure in found.figures.items():
        add(rows, name, str(figure), figure.source, "per tile" if figure.unit in ("ms", "mJ") else "")
    for row in found.inputs:
        add(rows, row.name, "null" if row.value is None else str(row.value), row.origin, row.note)
    show(rows)
    typer.echo("")
    if predicted:
        typer.echo("predicted: latency or energy above is predicted, not measured; measure on the device before flight")


def _from_to(amount: Amount, predicted: bool) -> str:
    return f"{'predicted ' if predicted else ''}{amount.low:.3g} to {amount.high:.3g}"


def _range(amount: Amount, scale: float = 1.0) -> str:
    """An amount divided by ``scale``; one with an interval has the word, also where its ends round to one text."""
    low, mid, high = (f"{value / scale:.3g}" for value in (amount.low, amount.mid, amount.high))
    if amount.is_exact:
        return mid
    return f"predicted {mid}" if low == high else f"predicted {low} to {high} (middle {mid})"
