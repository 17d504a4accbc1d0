"""``rsedge trust``: the keys whose bundles this machine takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsedge.cli.common import print_json, unwrapped
from rsedge.cli.options import Json

if TYPE_CHECKING:
    from rsedge.runtimes.bundle.trust import TrustedKey

System = Annotated[
    bool,
    typer.Option("--system", help="The keys of the whole machine (/etc/rsedge/trusted; as root), e.g. for a service."),
]

ABOUT = """The keys whose bundles this machine takes. Once there is one, every command that opens a bundle (infer, evaluate,
bench, verify, inspect, build, budget) refuses those that none of the keys has signed.

Take the public key from the people who make the bundles, by another way than the bundles come, and compare fingerprints:
openssl pkey -pubin -in team.pub -outform DER | sha256sum

Examples:

    rsedge trust add team.pub --name ground-segment

    rsedge trust list

    rsedge trust remove ground-segment
"""


def register(app: typer.Typer) -> None:
    """Adds ``trust`` and its three commands to the command line."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    for name, function in (("add", add), ("list", list_keys), ("remove", remove)):
        group.command(name, help=unwrapped(function.__doc__ or ""))(function)
    app.add_typer(group, name="trust", help=unwrapped(ABOUT))


def add(
    key: Annotated[Path, typer.Argument(metavar="KEY.pub", help="Ed25519 public key (PEM).")],
    name: Annotated[str | None, typer.Option(help="How to call it here; the file's name when not given.")] = None,
    system: System = False,
    as_json: Json = False,
) -> None:
    """Trust a public key: from now on bundles must be signed by it or by another trusted key."""
    from rsedge.runtimes.bundle.trust import add_key

    added = add_key(key, name, system)
    if as_json:
        print_json(_record(added))
        return
    typer.echo(
        f"trusted: {added.name}, fingerprint {added.fingerprint}\nkept in {added.file}; bundles must be signed by a trusted key now"
    )


def list_keys(as_json: Json = False) -> None:
    """List the trusted keys of this machine and of this user, with their fingerprints."""
    from rsedge.runtimes.bundle.trust import trusted_keys

    keys = trusted_keys()
    if as_json:
        print_json({"keys": [_record(k) for k in keys], "signatures_required": bool(keys)})
        return
    for key in keys:
        typer.echo(f"{key.name}\n  fingerprint {key.fingerprint}\n  {key.file}")
    if not keys:
        typer.echo("no trusted keys: bundles need no signature; add one: rsedge trust add KEY.pub")


def remove(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name, or the first digits (8 or more) of its fingerprint.")
    ],
    system: System = False,
    as_json: Json = False,
) -> None:
    """Trust a key no longer. With the last one no signature is asked for any more."""
    from rsedge.runtimes.bundle.trust import remove_key

    left = remove_key(name, system)
    if as_json:
        print_json({"removed": name, "left": left})
        return
    then = (
        f"{left} left here"
        if left
        else "it was the last one here: unless there are others (rsedge trust list), UNSIGNED bundles are taken"
    )
    typer.echo(f"removed: {name}; {then}")


def _record(key: TrustedKey) -> dict[str, Any]:
    return {"name": key.name, "fingerprint": key.fingerprint, "file": str(key.file)}
