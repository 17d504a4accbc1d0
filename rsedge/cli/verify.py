"""``rsedge verify``: whether a bundle is whole, signed and gives its golden vector here; needs no torch."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from rsedge.cli.common import opened_bundle, print_json
from rsedge.cli.heed import refuse_unheeded
from rsedge.cli.options import BundlePath, Device, Json, Key, Threads
from rsedge.data.errors import GateFailed, IntegrityError, MissingCapability
from rsedge.data.metrics.verdict import verdict_record, verdict_text

LISTED = "pack.json"


def verify(
    context: typer.Context,
    bundle: BundlePath,
    key: Key = None,
    threads: Threads = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Check a bundle on this machine: file hashes, signature, and its golden vector on the actual executable; of captions
    its golden answer, too.

    Ends with exit code 2 when a file or the signature is wrong, 3 when the executable gives other numbers. With --device
    CPU a bundle for an NPU, GPU or VPU is checked where there is none; that proves its files, not the device.

    Of a pack (`rsedge pack`) all its files are held against its list first, and then the bundle in it is checked.

    Example:

        rsedge verify bundle.zip --key team.pub
    """
    bundle = _bundle_of(bundle)
    from rsedge.runtimes.bundle.whole import verify_bundle
    from rsedge.runtimes.inference.golden_answer import verify_answer

    with opened_bundle(bundle, key) as opened:
        refuse_unheeded(context, opened, device=device)
        manifest, signature = opened.manifest, opened.signature
        verdict = verdict_text(manifest.verdict)
        if not as_json:
            # First: what cannot run here (an engine that is not built) has them as well.
            typer.echo(f"{bundle}: {len(manifest.files)} files whole; {signature}\n{verdict}")
        try:
            result = verify_bundle(opened, threads, device)
            answer = verify_answer(opened, threads)
        except MissingCapability as error:
            raise MissingCapability(f"{error}; {verdict}" if as_json else str(error)) from error
        record = {
            "bundle": str(bundle),
            "target": manifest.target.name,
            "files": len(manifest.files),
            **signature.record(),
            "golden": result.as_dict(),
            "golden_answer": None if answer is None else answer.as_dict(),
            "passed": result.passed and (answer is None or answer.passed),
            "verdict": verdict_record(manifest.verdict),
        }
    what = "pixels" if manifest.parts is None else "values of all parts together"
    text = (
        f"golden vector: largest difference {result.max_abs_difference:.3g} (limit {result.atol:.3g}), "
        f"{result.agreement:.4%} of {result.n} {what} agree (limit {result.agreement_min:.2%})"
    )
    if not result.passed:
        if not result.valid_equal:
            text += "; the nodata mask differs"
        raise GateFailed(f"{bundle}: {text}; do not fly this bundle on this machine")
    if answer is not None:
        text += f"; golden answer: largest difference {answer.max_abs_difference:.3g} (limit {answer.limit:.3g})"
        if not answer.passed:
            raise GateFailed(
                f"{bundle}: the language model's golden answer differs: {answer.reason}; do not fly this bundle on this machine"
            )
    if as_json:
        print_json(record)
        return
    typer.echo(text)


def _bundle_of(given: Path) -> Path:
    """The bundle itself, or the one in a pack whose files are what its list says.

    Raises:
        IntegrityError: a file of the pack is missing, was altered, or is not listed.
        RequestError: its list is a link, cannot be read or is damaged.
    """
    if not os.path.lexists(given / LISTED):
        return given
    from rsedge.packing.pack import BUNDLE, check

    if wrong := check(given):
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise IntegrityError(f"{given}: this pack is not whole: {', '.join(wrong[:5])}{more}; copy it again")
    return given / BUNDLE
