"""The three cards of a bundle, written side by side."""

from __future__ import annotations

from pathlib import Path

from rsedge.data.files import make_folder, write_bytes, write_json
from rsedge.reports.cards.bom import BOM, ml_bom
from rsedge.reports.cards.model_card import CARD, model_card
from rsedge.reports.cards.stac import ITEM, stac_item
from rsedge.reports.cards.subject import Subject


def write_cards(subject: Subject, folder: Path) -> tuple[Path, ...]:
    """Writes model card, STAC item and bill of materials into ``folder``, and returns their paths.

    Raises:
        RequestError: the folder cannot be made or written.
    """
    make_folder(folder)
    paths = (folder / CARD, folder / ITEM, folder / BOM)
    write_bytes(paths[0], model_card(subject).encode())
    write_json(paths[1], stac_item(subject))
    write_json(paths[2], ml_bom(subject))
    return paths
