"""How an advice is written where it can be followed: as an option of the command line, or as a field of a recipe."""

from __future__ import annotations

from enum import Enum


class Wording(Enum):
    """Where the reader of a message acts."""

    COMMAND = "command"
    RECIPE = "recipe"

    def say(self, option: str, value: str | None = None) -> str:
        """An option by name: ``--nan-nodata`` or ``nan_nodata: true``; ``--scale 0.0001`` or ``scale: 0.0001``."""
        if self is Wording.COMMAND:
            return f"--{option.replace('_', '-')}" + ("" if value is None else f" {value}")
        return f"{option}: {'true' if value is None else value}"

    def bands(self, names: list[str]) -> str:
        """The option that names a file's bands."""
        joined = ",".join(names)
        if self is Wording.COMMAND:
            return f"--bands {joined}"
        quoted = ", ".join(f"'{n}'" if n == "-" else n for n in names)
        return f"bands: [{quoted}]"
