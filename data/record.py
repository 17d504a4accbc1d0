"""The base of records: unknown fields are errors, values do not change."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A record of fixed fields, read from outside or written for later."""

    model_config = ConfigDict(extra="forbid", frozen=True)
