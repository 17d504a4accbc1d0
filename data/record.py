"""The base of records: unknown fields are errors, values do not change."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rsedge.data.errors import RequestError


class Record(BaseModel):
    """A record of fixed fields, read from outside or written for later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], value: object, where: str | Path) -> Model:
    """``model`` built from ``value``; pydantic's complaints become one :class:`RequestError` naming file and fields."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        parts = [f"{'.'.join(str(p) for p in e['loc']) or '(top level)'}: {e['msg']}" for e in error.errors()]
        raise RequestError(f"{where}: " + "; ".join(parts)) from error
