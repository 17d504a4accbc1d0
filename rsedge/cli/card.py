"""``rsedge card``: what others read of a bundle, in formats of their own."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsedge.cli import complete
from rsedge.cli.common import opened_bundle, print_json
from rsedge.cli.options import Json, Key
from rsedge.data.errors import RequestError
from rsedge.data.printable import printable
from rsedge.version import __version__

if TYPE_CHECKING:
    from rsedge.reports.cards.subject import Archive, Array, Subject
    from rsedge.reports.schema import Report
    from rsedge.runtimes.bundle.reading import Bundle


def card(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|BUNDLE", autocompletion=complete.runs, help="A run folder, or one bundle.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write; of a run a folder per target.")
    ],
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Write what others ask of a model: Hugging Face model card, STAC item (MLM 1.5), CycloneDX 1.6 bill of materials.

    All three come from the records alone: bands, units, classes, metrics with intervals, latency with the word predicted where it
    was not measured, hashes, signature, licences, and what was never measured. A run says more than a bundle: only its report knows
    intervals, data and the teacher's licence. What is not known is said to be not known.
    Cards that are there are written anew; a README.md that is no such card is left alone, and named.

    Examples:

        rsedge card runs/quickstart -o cards

        rsedge card runs/quickstart/bundles/openvino-cpu-int8 -o card --json
    """
    from rsedge.reports.cards.writing import check_cards, write_cards

    written, asked = {}, _asked(source, output)
    for _, _, folder in asked:
        check_cards(folder)
    for bundle, report, folder in asked:
        with opened_bundle(bundle, key) as opened:
            written[opened.target.name] = write_cards(_subject(opened, report, source, folder), folder)
    if as_json:
        print_json({"cards": {name: [str(path) for path in paths] for name, paths in written.items()}})
        return
    for paths in written.values():
        for path in paths:
            typer.echo(printable(f"wrote {path}"))


def _asked(source: Path, output: Path) -> list[tuple[Path, Report | None, Path]]:
    """Bundles, the report of their run where there is one, and where the cards of each go.

    Raises:
        RequestError: there is no bundle.
    """
    from rsedge.reports.schema import report_of

    if not source.is_dir() or (source / "manifest.json").exists():
        return [(source, None, output)]
    report = report_of(source)
    found = [(source / t.bundle, report, output / t.name) for t in report.targets if t.bundle is not None]
    missing = [str(bundle) for bundle, _, _ in found if not bundle.exists()]
    if missing or not found:
        lacks = f"{', '.join(missing)} of its report is gone" if missing else "its report names no bundle"
        raise RequestError(f"{source}: {lacks}; the same `rsedge run` again makes bundles anew")
    return list(found)


def _subject(bundle: Bundle, report: Report | None, run: Path, folder: Path) -> Subject:
    from rsedge.reports.cards.subject import Subject

    inputs, outputs = _arrays(bundle)
    packed = not bundle.path.is_dir()
    places = {} if packed else {name: _reference(bundle.path / name, folder) for name in bundle.manifest.files}
    return Subject(
        manifest=bundle.manifest,
        manifest_sha256=bundle.manifest_sha256,
        signature=str(bundle.signature),
        key=bundle.signature.fingerprint,
        inputs=inputs,
        outputs=outputs,
        places=places,
        archive=_archive(bundle.path, folder) if packed else None,
        writer=__version__,
        report=report,
        student=None if report is None else _student(run),
        licences=_licences(),
    )


def _reference(path: Path, folder: Path) -> str:
    """A relative reference to a file from where cards lie, with marks as addresses have them; holds beyond links."""
    relative = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    return urllib.parse.quote(os.fsencode(relative))


def _archive(path: Path, folder: Path) -> Archive:
    from rsedge.data.files import sha256_file
    from rsedge.reports.cards.subject import Archive

    return Archive(_reference(path, folder), path.stat().st_size, sha256_file(path))


def _arrays(bundle: Bundle) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """What goes in and what comes out, as the golden vector has it."""
    from rsedge.reports.cards.subject import Array

    if bundle.manifest.parts is not None:
        from rsedge.runtimes.bundle.whole import golden_sample

        sides: tuple[Mapping[str, Any], ...] = golden_sample(bundle)
    else:
        golden = bundle.golden()
        sides = ({"dn": golden.pop("dn")}, golden)
    # A golden vector may hold several tiles; the model takes one at a time.
    one, two = (tuple(Array(n, str(a.dtype), (1, *a.shape[1:])) for n, a in side.items()) for side in sides)
    return one, two


def _student(run: Path) -> str | None:
    """The student's architecture, as the recipe that was run names it."""
    from rsedge.data.documents import read_document

    student = read_document(run / "recipe.resolved.yaml", "recipe").value.get("student")
    name = student.get("name") if isinstance(student, dict) else None
    return name if isinstance(name, str) else None


def _licences() -> dict[str, str]:
    from rsedge.cli.sources import entries

    return {entry.name: entry.licence for entry in entries()}
