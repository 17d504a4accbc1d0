"""``rsedge build`` and ``rsedge setup-myriad``: what a device's own runtime needs before a bundle flies there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsedge.cli.common import opened_bundle, print_json, unwrapped
from rsedge.cli.options import BundlePath, Json, Key
from rsedge.data.errors import RequestError
from rsedge.runtimes.registry import backends


def register(app: typer.Typer) -> None:
    """Adds both commands to the command line."""
    for name, function in (("build", build), ("setup-myriad", setup_myriad)):
        app.command(name, help=unwrapped(function.__doc__ or ""))(function)


def build(
    bundle: BundlePath,
    key: Key = None,
    times: Annotated[
        int,
        typer.Option(min=1, help="TensorRT: build so many engines, compare them on the golden vector, keep the best."),
    ] = 1,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="TensorRT: drop the kernel times, measure anew.")] = False,
    dla: Annotated[
        int | None,
        typer.Option(metavar="CORE", min=0, help="TensorRT: prefer this DLA core; the engine's record lists layers."),
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="TensorRT: newer versions of the same major load the engine.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build what the bundle's device runs, on the device itself: a TensorRT engine, or OpenVINO's compiled blob.

    What is built is kept outside the bundle, in this device's own cache, signed with a key made here (RSEDGE_CACHE names
    another place). An engine fits one GPU and one TensorRT version. Kernel times are kept too, so that the next build chooses
    the same kernels. An OpenVINO bundle runs without a build; with one it starts in a moment.
    """
    with opened_bundle(bundle, key) as opened:
        if opened.manifest.parts is not None:
            raise RequestError(
                f"{bundle}: is of several parts, which run without a build; next: rsedge verify {bundle}"
            )
        asked = {"times": times, "rebuild": rebuild, "dla": dla, "version_compatible": version_compatible}
        options = {n: v for n, v in asked.items() if v is not None and v is not False and (n, v) != ("times", 1)}
        if idle := [n for n in options if n not in opened.backend.build_options]:
            words = ", ".join("--" + n.replace("_", "-") for n in idle)
            takers = ", ".join(b.title for b in backends() if b.build_options >= set(idle))
            raise RequestError(
                f"{bundle}: {words}: for bundles of {takers or 'no runtime here'}; this one is for {opened.target.name}"
            )
        record = opened.backend.build(opened, options)
    if as_json:
        print_json({"bundle": str(bundle), **record})
        return
    typer.echo(f"{record['built']}: {record['bytes']:,} bytes; next: rsedge verify {bundle}")
    if "spread" in record:
        found = record["spread"]
        typer.echo(
            f"{found['builds']} builds, {found['distinct_engines']} distinct engines, {found['passed']} pass the golden vector; "
            f"agreement {found['agreement'][0]:.4%} to {found['agreement'][1]:.4%}, largest logit difference "
            f"{found['max_abs_difference'][0]:.3g} to {found['max_abs_difference'][1]:.3g}; kept: number {found['kept'] + 1}"
        )


def setup_myriad(
    python: Annotated[
        Path | None, typer.Option(metavar="PYTHON3.10", help="A Python 3.10; looked for if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the environment with OpenVINO 2022.3.2 that Myriad targets need, once (Python 3.10, about 180 MB).

    It goes to the user's cache folder. RSEDGE_OPENVINO2022 names the Python of another installation instead, for example
    of the OpenVINO 2022.3 archive, whose MYRIAD plugin runs the VPU.
    """
    from rsedge.runtimes.myriad.process import VERSION, create_environment

    made = create_environment(python=python)
    if as_json:
        print_json({"python": str(made), "openvino": VERSION})
    else:
        typer.echo(f"{made}: OpenVINO {VERSION}, ready for targets such as openvino-myriad-x-fp16")
