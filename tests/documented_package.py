"""A package as one of the documents has it, laid down as pip leaves one: its modules, and a note of its entry points."""

from __future__ import annotations

import re
from pathlib import Path

DOCUMENTS = Path(__file__).parents[1] / "docs"


def install(document: str, folder: Path) -> Path:
    """Writes what ``docs/DOCUMENT`` shows: the entry points of its ``toml``, and the modules that its ``py`` blocks name first."""
    text = (DOCUMENTS / document).read_text(encoding="utf-8")
    (entry_points,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    for code in re.findall(r"```py\n(.*?)```", text, re.DOTALL):
        (folder / code.split()[1].rstrip(":")).write_text(code)
    about = folder / "toys-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry_points.replace("project.entry-points.", "").replace('"', ""))
    return folder
