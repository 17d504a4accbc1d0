"""``rsedge deploy``: files that start a bundle with a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsedge.cli.common import opened_bundle, print_json, unwrapped
from rsedge.cli.options import BundlePath, Json, Key
from rsedge.data.errors import RequestError


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("deploy", help=unwrapped(deploy.__doc__ or ""))(deploy)


def deploy(
    kind: Annotated[str, typer.Argument(metavar="systemd|container|cwl", help="What is written.")],
    bundle: BundlePath,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the files; made if need be.")],
    rsedge: Annotated[str, typer.Option(help="The command on the machine that flies.")] = "/opt/rsedge/bin/rsedge",
    place: Annotated[str, typer.Option(help="Where the bundle lies there.")] = "/opt/rsedge/bundle",
    incoming: Annotated[str, typer.Option(help="The folder that is watched there.")] = "/srv/rsedge/incoming",
    token: Annotated[str | None, typer.Option(metavar="FILE", help="A token there, root's alone; the unit hands it over.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    memory: Annotated[int, typer.Option(metavar="MIB", min=64, help="Memory above which the process is ended.")] = 2048,
    image: Annotated[str, typer.Option(help="cwl: the container image, as a platform names it.")] = "rsedge-bundle",
    key: Key = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Write files that start a bundle with a machine: hardened systemd units for `rsedge serve` and `rsedge watch`, container
    recipes for x86-64, Arm and Jetson, or a CWL application package of `rsedge infer` for platforms.

    Examples:

        rsedge deploy systemd bundle.zip --output units --token /etc/rsedge/token

        rsedge deploy container bundle --output bundle/..

        rsedge deploy cwl bundle.zip --output package --image team/cloud-mask:1.0
    """
    from rsedge.serving.deployment import FILES, Places, write_deployment

    named = next((one for one in FILES if one == kind), None)
    if named is None:
        raise RequestError(f"{kind}: choose {', '.join(FILES)}")
    places = Places(rsedge, place, incoming, token, port, memory, image)
    with opened_bundle(bundle, key) as opened:
        written = write_deployment(named, opened, places, output)
    if as_json:
        print_json({"files": [str(path) for path in written]})
        return
    typer.echo("\n".join(map(str, written)))
