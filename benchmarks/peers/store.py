"""Where contenders' models are kept, and what became of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contender import Made
from material import RUNS, Case

from rsedge.data.errors import RequestError
from rsedge.data.files import read_json, write_json
from rsedge.data.record import Record


class Attempt(Record):
    """What became of one contender: what it made, or why it made nothing; processor time of the whole, None where it was
    interrupted and went on."""

    seconds: float | None = None
    made: Made | None = None
    error: str | None = None

    def row(self) -> dict[str, Any]:
        """What the results keep of it: all but the file, which stays here."""
        return self.model_dump(mode="json", exclude={"made": {"model"}})


def place(case: Case, seed: int, name: str) -> Path:
    """A contender's folder."""
    return RUNS / "contenders" / f"{case.name}-{seed}" / name


def attempt(case: Case, seed: int, name: str) -> Attempt | None:
    """What became of a contender; None where it was not tried yet."""
    path = place(case, seed, name) / "attempt.json"
    return Attempt.model_validate(read_json(path)) if path.is_file() else None


def keep_attempt(case: Case, seed: int, name: str, found: Attempt) -> None:
    write_json(place(case, seed, name) / "attempt.json", found.model_dump(mode="json"))


def made_by(case: Case, seed: int, name: str) -> Made:
    """What a contender made.

    Raises:
        RequestError: nothing yet.
    """
    found = attempt(case, seed, name)
    if found is None or found.made is None:
        raise RequestError(f"{name} comes first: nothing was made for {case.name}, seed {seed}")
    return found.made
