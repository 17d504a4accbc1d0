"""Who held a row with its published weights against the authors' own code, and with what outcome: ``confirmed.json``. No torch.

``rsedge teachers NAME --check FILE --reference OUT.npz --result RESULT.json --by WHO`` writes one;
``python -m rsedge.models.confirmed RESULT.json`` adds it to the table. Nothing else writes there.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from rsedge.data.errors import RequestError
from rsedge.data.files import write_json
from rsedge.data.json_text import read_json, read_object
from rsedge.data.record import Record, validated
from rsedge.models.zoo import teacher_row

TABLE = "confirmed.json"


def printed_whole(text: str) -> bool:
    """Whether a text can stand in a line of a table as it is."""
    return text.isprintable() and "|" not in text


class Compared(Record):
    """One array: the largest difference over the largest value (null: of another shape, or not finite), and what is allowed."""

    difference: float | None = Field(ge=0)
    allowed: float = Field(gt=0)

    @property
    def agrees(self) -> bool:
        return self.difference is not None and self.difference <= self.allowed


class Outcome(Record):
    """A row on one checkpoint against one file of the authors' outputs.

    Attributes:
        by: who ran the authors' code, and which.
        drawn: the weights were drawn by the written rule, so that the published ones are not confirmed.
        file: name of the checkpoint; hashes are SHA-256.
        not_compared: arrays of which the row has none.
    """

    row: str
    by: str = Field(min_length=1)
    date: str = Field(pattern=r"^\d{4}-\d\d-\d\d$")
    rsedge: str
    file: str
    file_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    reference_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    drawn: bool
    arrays: dict[str, Compared] = Field(min_length=1)
    not_compared: tuple[str, ...] = ()

    @field_validator("by")
    @classmethod
    def _is_a_line(cls, by: str) -> str:
        if not printed_whole(by):
            raise ValueError("is no line of text without '|' and control characters")
        return by

    @property
    def agrees(self) -> bool:
        return all(one.agrees for one in self.arrays.values())

    @property
    def worst(self) -> float:
        """Infinite where an array could not be compared."""
        return max(float("inf") if one.difference is None else one.difference for one in self.arrays.values())

    @property
    def words(self) -> str:
        """``Laboratory (4e-07)``."""
        return f"{self.by} ({self.worst:.0e})"


class Confirmation(Outcome):
    """An outcome that confirms: every array agrees, with published weights."""

    @model_validator(mode="after")
    def _confirms(self) -> Confirmation:
        if self.drawn:
            raise ValueError("its weights are drawn by the rule, which confirms the structure and no published weights")
        if not self.agrees:
            names = ", ".join(name for name, one in self.arrays.items() if not one.agrees)
            raise ValueError(f"does not agree: {names}")
        return self


def read_outcome(value: Any, where: str | Path) -> Confirmation:
    """A confirmation of a row that exists.

    Raises:
        RequestError: it is none.
    """
    found = validated(Confirmation, value, where)
    teacher_row(found.row)
    return found


@cache
def confirmed() -> tuple[Confirmation, ...]:
    """The table as it ships."""
    text = (resources.files("rsedge.models") / TABLE).read_text(encoding="utf-8")
    return tuple(read_outcome(one, TABLE) for one in json.loads(text))


def add(result: Path, table: Path) -> Confirmation:
    """Adds a result that was sent to the table.

    Raises:
        RequestError: it confirms nothing, or stands there already.
    """
    found = read_outcome(read_object(result), result)
    known = [read_outcome(one, table) for one in read_json(table)]
    if found in known:
        raise RequestError(f"{result}: is in the table already")
    write_json(table, [one.model_dump(mode="json") for one in (*known, found)])
    return found


if __name__ == "__main__":
    print(add(Path(sys.argv[1]), Path(__file__).with_name(TABLE)).words)
