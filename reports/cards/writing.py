"""The three cards of a bundle, written side by side."""

from __future__ import annotations

from pathlib import Path

from rsedge.data.files import make_folder, write_bytes, write_json, writing
from rsedge.reports.cards.bom import BOM, ml_bom
from rsedge.reports.cards.model_card import CARD, WRITTEN, model_card
from rsedge.reports.cards.stac import ITEM, stac_item
from rsedge.reports.cards.subject import Subject
from rsedge.runtimes.inference.outputs import check_outputs, check_replaces

WRITER = "rsedge card"
MARKS = {CARD: WRITTEN, ITEM: b'"rsedge:verdict":', BOM: b'"rsedge:verdict"'}
"""By name of file, what the file has where ``rsedge card`` wrote it."""


def check_cards(folder: Path) -> None:
    """Refuses a folder in which cards may not be written, before any work.

    Raises:
        RequestError: it lies in a bundle or among a run's own files, cannot be written, or has a file of a card's name, perhaps a
            project's README.md, that ``rsedge card`` did not write.
    """
    check_outputs([folder / name for name in MARKS])
    for name, mark in MARKS.items():
        check_replaces(folder / name, mark, WRITER)


def write_cards(subject: Subject, folder: Path) -> tuple[Path, ...]:
    """Writes model card, STAC item and bill of materials into ``folder``, and returns their paths.

    Raises:
        RequestError: the folder cannot be made or written, or as :func:`check_cards`.
    """
    check_cards(folder)
    with writing(folder):
        make_folder(folder)
    paths = (folder / CARD, folder / ITEM, folder / BOM)
    write_bytes(paths[0], model_card(subject).encode())
    write_json(paths[1], stac_item(subject))
    write_json(paths[2], ml_bom(subject))
    return paths
