"""What commands say of the verdict that a bundle carries; needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from rsedge.data.errors import GateFailed
from rsedge.data.metrics.verdict import gate_line, verdict_text

if TYPE_CHECKING:
    from rsedge.runtimes.bundle.reading import Bundle


def say_verdict(bundle: Bundle) -> None:
    """On stderr, since stdout is the command's own."""
    typer.echo(verdict_text(bundle.manifest.verdict), err=True)


def require_passed(bundle: Bundle) -> None:
    """Refuses a bundle whose gates did not all pass.

    Raises:
        GateFailed: a gate failed, was not taken or is undecided, there were none, or the bundle carries no verdict; or no key
            that is given or trusted has signed the one it carries, which anyone may have written.
    """
    found, signature = bundle.manifest.verdict, bundle.signature
    if found is not None and found.proven:
        if signature.trust != "trusted":
            raise GateFailed(
                f"{bundle.path}: --require-passed: {verdict_text(found)}, but anyone may have written that: the bundle is "
                f"{signature}. Give the public key of those who made it (--key PUB), or trust it (rsedge trust add PUB)"
            )
        return
    lines = [f"\n  {g.name}: {gate_line(g)}" for g in found.gates if g.outcome != "passed"] if found else []
    raise GateFailed(f"{bundle.path}: --require-passed: {verdict_text(bundle.manifest.verdict)}{''.join(lines)}")
