"""``rsedge sources``: the scenes, samples and image-text sets that a recipe can name, and one of them in full."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

import typer

from rsedge.cli.complete import Found, begins

Kind = Literal["scene", "samples", "image-text"]


@dataclass(frozen=True)
class Entry:
    """One source: its name in a recipe, what it holds, and where its files must lie."""

    name: str
    kind: Kind
    about: str
    task: str
    layout: str
    bands: tuple[str, ...]
    gsd_m: float | None
    licence: str
    where: str
    publisher: str = ""
    quantity: str = ""
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def source_names(incomplete: str) -> Found:
    """For the shell to complete."""
    return begins(((entry.name, entry.about) for entry in entries()), incomplete)


def sources_command(
    name: Annotated[
        str | None, typer.Argument(autocompletion=source_names, help="A source; leave it out to list all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """List the data that recipes can name, or show one source whole: bands, classes, where its files must lie."""
    from rsedge.data.document_check import nearest
    from rsedge.data.errors import RequestError

    found = {entry.name: entry for entry in entries()}
    if name is not None and name not in found:
        raise RequestError(f"source '{name}' is unknown{nearest(name, list(found))}; `rsedge sources` lists all")
    if as_json:
        record = asdict(found[name]) if name else {"sources": [asdict(entry) for entry in found.values()]}
        typer.echo(json.dumps(record))
    elif name is not None:
        typer.echo("\n".join(card(found[name])))
    else:
        _print_table(list(found.values()))


def entries() -> list[Entry]:
    """All sources: named scenes, real sample sets, survey sets, image-text sets."""
    from rsedge.data.boxes.sets import BOXES
    from rsedge.data.captions.sets import caption_rows
    from rsedge.data.samples.chips import CHIPS
    from rsedge.data.samples.finer import FINER
    from rsedge.data.samples.pairs import PAIRS
    from rsedge.data.sets.datasets import TORCHGEO, datasets
    from rsedge.data.sets.sample_sets import SAMPLE_SETS
    from rsedge.data.sets.sample_sources import CAPTIONS, SAMPLE_SOURCES
    from rsedge.data.sets.scene_sources import CATALOGUE

    shared = "under RSEDGE_DATA: {}".format
    made = [
        Entry(n, "scene", s.about, "segmentation" if s.labels else "none", "CHW", s.bands, s.gsd_m, s.licence,
              f"wheel {s.package}" if s.package else shared(s.path), quantity="reflectance")
        for n, s in CATALOGUE.items()
    ]  # fmt: skip
    made += [
        Entry(n, "samples", s.about, s.task, s.layout, s.bands, s.gsd_m, s.licence,
              f"wheel {s.wheel[0]}" if s.wheel else shared(s.where))
        for n, s in SAMPLE_SETS.items()
    ]  # fmt: skip
    made += [
        Entry(TORCHGEO + n, "samples", r.title, r.task, r.layout, r.bands, r.gsd_m, r.licence, f"in root: {r.folders}",
              r.where, r.quantity, r.classes, r.notes)
        for n, r in datasets().items()
    ]  # fmt: skip
    made += [
        Entry(CAPTIONS + n, "image-text", r.title, "texts", "CHW", ("red", "green", "blue"), None, r.licence,
              f"in root: {r.file} and images in {r.images}", r.where, "rgb_8bit")
        for n, r in caption_rows().items()
    ]  # fmt: skip
    made.append(
        Entry(f"{CAPTIONS}file", "image-text", "files of your own, by their layout (docs/data.md)", "texts", "CHW",
              ("red", "green", "blue"), None, "yours", "in root, by the layout", quantity="rgb_8bit")
    )  # fmt: skip
    made += [
        Entry(CHIPS, "samples", SAMPLE_SOURCES[CHIPS], "classification", "CHW", ("those of the files",), None, "yours",
              "by path, in options.folder (docs/data.md)"),
        Entry(PAIRS, "samples", SAMPLE_SOURCES[PAIRS], "change", "TCHW", ("those of the files",), None, "yours",
              "by path, in options.pairs (docs/data.md)"),
        Entry(BOXES, "samples", SAMPLE_SOURCES[BOXES], "detection", "CHW", ("those of the files",), None, "yours",
              "by path, in options.annotations (docs/detection.md)"),
        Entry(FINER, "samples", SAMPLE_SOURCES[FINER], "super-resolution", "CHW", ("those of the files",), None, "yours",
              "by path, in options.scenes (docs/super-resolution.md)"),
    ]  # fmt: skip
    return made


def _print_table(found: list[Entry]) -> None:
    from rsedge.cli.tables import add, show, table

    made = table("source", "kind", "task", "bands", "GSD", "licence", "what it is")
    for entry in found:
        bands = f"{len(entry.bands)} {entry.layout}"
        gsd = f"{entry.gsd_m:g} m" if entry.gsd_m else ""
        add(made, entry.name, entry.kind, entry.task, bands, gsd, entry.licence, entry.about)
    show(made)
    typer.echo(
        "`rsedge sources NAME` shows one, with the place of its files. Nothing is downloaded. torchgeo: needs rsedge[geo].\n"
        "Licences are as far as known here; the publisher's word counts.\n"
        "Besides: a GeoTIFF by path; a table (.parquet, .csv, .npz) by path; images of a segmentation set as scenes,\n"
        "e.g. torchgeo:loveda/train/0-9."
    )


def card(entry: Entry) -> list[str]:
    """One source as lines of text."""
    gsd = f", GSD {entry.gsd_m:g} m" if entry.gsd_m else ""
    quantity = f", {entry.quantity}" if entry.quantity else ""
    lines = [
        f"{entry.name}: {entry.about}",
        f"kind: {entry.kind}; task: {entry.task}; licence: {entry.licence}",
        f"bands: {entry.layout}{gsd}{quantity}: {', '.join(entry.bands)}",
        f"files, {entry.where}",
    ]
    if entry.publisher:
        lines.append(f"publisher: {entry.publisher}")
    if entry.classes:
        lines.append(f"classes: {'; '.join(entry.classes)}")
    return lines + [f"note: {note}" for note in entry.notes]
