"""``rsedge pack``: one folder that flies, with the bundle and what runs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rsedge.cli.common import opened_bundle, print_json, unwrapped
from rsedge.cli.options import BundlePath, Json, Key
from rsedge.data.errors import RequestError

SHOWN = 8


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("pack", help=unwrapped(pack.__doc__ or ""))(pack)


def pack(
    bundle: BundlePath,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write; replaces an older pack.")],
    device: Annotated[
        str | None, typer.Option("--for", metavar="DEVICE", help="The device it is for; refused where the bundle is for another.")
    ] = None,
    python: Annotated[
        str, typer.Option(metavar="PYTHON", help="The interpreter whose installed packages are taken; the pack is for its version.")
    ] = sys.executable,
    without_gdal: Annotated[
        bool, typer.Option("--without-gdal", help="Leave GDAL out: ENVI files, arrays and tables in and out, no GeoTIFF.")
    ] = False,
    keep_symbols: Annotated[
        bool, typer.Option("--keep-symbols", help="Leave in what only debuggers read: libraries are the wheels' own bytes.")
    ] = False,
    key: Key = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Write one folder that flies: the bundle, the libraries its runtime needs, our code that flies, and a launcher `run`.

    It is made of the packages that are installed for a Python (--python) and is for that version of Python on this kind of
    processor; the device needs that Python alone, no pip and no network. Plugins, converters and tools that the bundle does not use
    stay out. pack.json lists every file with size and hash. The pack's golden vector runs in an empty environment before it is
    handed over.

    Nothing is written into the pack when it runs, so it may lie on a read-only file system. For TensorRT it relies on JetPack's own
    TensorRT; what is expected there stands in pack.json.

    Examples:

        rsedge pack runs/quickstart/bundles/openvino-cpu-int8 --output pack

        pack/run infer scene.tif --output mask.tif

        rsedge pack bundle.zip --output pack312 --python /venvs/312/bin/python
    """
    from rsedge.packing.distributions import interpreter
    from rsedge.packing.pack import Wanted
    from rsedge.packing.pack import pack as packed

    with opened_bundle(bundle, key) as opened:
        if device is not None and device != opened.target.device:
            raise RequestError(f"{bundle}: is for {opened.target.device}, not {device}; pack the bundle of that target")
        wanted = Wanted(interpreter(python), not without_gdal, not keep_symbols)
        found = packed(opened, wanted, output, lambda text: None if as_json else typer.echo(text, err=True))
    if as_json:
        print_json({"pack": str(output), **found})
        return
    typer.echo("\n".join(lines(output, found)))


def lines(output: Path, found: dict[str, Any]) -> list[str]:
    """What was written, for a terminal."""
    mb = 1e6
    parts = [
        f"  {row['name']} {row['version'] or ''}".ljust(32) + f"{row['bytes'] / mb:8.1f} MB"
        for row in found["parts"][:SHOWN]
    ]
    rest = found["parts"][SHOWN:]
    more = [f"  {len(rest)} more".ljust(32) + f"{sum(r['bytes'] for r in rest) / mb:8.1f} MB"] if rest else []
    needs = [f"needs on the device: {one}" for one in found["system"]]
    return [
        f"{output}: {found['bytes'] / mb:.1f} MB in {len(found['files'])} files, for {found['python']} on {found['platform']} "
        f"with glibc {found['glibc']} or newer",
        *parts, *more, *needs, f"start: {output}/run infer SCENE --output MAP",
    ]  # fmt: skip
