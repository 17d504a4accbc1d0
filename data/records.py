"""Records, one mapping of fields each, from JSON, JSON Lines, CSV and Parquet files. Nothing is unpickled."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError, missing_extra
from rsedge.data.files import require_file
from rsedge.data.json_text import LABELS_BYTES, parse_json, read_json

_NAME, _SHOWN = re.compile(r"[^\W\d][\w .%()/-]{0,59}"), 12
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")


def read_records(path: Path, field: str | None = None) -> Iterator[Any]:
    """Records of a file one by one; ``field`` of a JSON file holds the list of them (None: the file is the list).

    Raises:
        RequestError: unknown suffix, or not readable; names file and line.
        MissingCapability: pyarrow is not installed.
    """
    if path.suffix == ".json":
        yield from _json_list(path, field)
    elif path.suffix == ".jsonl":
        yield from _json_lines(path)
    elif path.suffix == ".csv":
        yield from _csv_rows(path)
    elif path.suffix == ".parquet":
        file = open_parquet(path)
        with arrow_errors(path):
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    else:
        raise RequestError(f"{path}: a file of records is one of {', '.join(SUFFIXES)}")


def fields_text(wanted: str, names: Sequence[str]) -> str:
    """What a message says of the fields that there are: their names, unless they are plainly none.

    A recipe may name any file of whoever runs it; the first line of one that is no table is not its writer's to read.
    """
    if len(names) < 2 or not all(not name or _NAME.fullmatch(name) for name in names):
        return "; what it has does not look like names of fields"
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{nearest(wanted, names)}; it has {shown}"


def open_parquet(path: Path) -> Any:
    """A ``pyarrow.parquet.ParquetFile``.

    Raises:
        RequestError: not readable.
        MissingCapability: pyarrow is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "tables", f"{path}") from error
    require_file(path)
    with arrow_errors(path):
        return parquet.ParquetFile(path)


@contextlib.contextmanager
def arrow_errors(path: Path) -> Iterator[None]:
    """What pyarrow raises of a file's content comes out as :class:`RequestError`; damage is found late, page by page."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, UnicodeError) as error:
        raise RequestError(f"{path}: not a readable Parquet file ({str(error)[:200]})") from error


def class_names(path: Path, fields: list[str]) -> list[str]:
    """Class names of the first of ``fields`` that the ``datasets`` library described in a Parquet file; empty without."""
    described = (open_parquet(path).schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    value = parse_json(described, path)
    for key in ("info", "features"):
        value = value.get(key) if isinstance(value, dict) else None
    features = value if isinstance(value, dict) else {}
    named = [features[f].get("names") for f in fields if isinstance(features.get(f), dict)]
    return [str(name) for name in named[0]] if named and isinstance(named[0], list) else []


def _json_list(path: Path, field: str | None) -> list[Any]:
    whole = read_json(path, LABELS_BYTES)
    found = whole if field is None else whole.get(field) if isinstance(whole, dict) else None
    if not isinstance(found, list):
        where = "the file" if field is None else f"'{field}'"
        lists = [k for k, v in whole.items() if isinstance(v, list)] if isinstance(whole, dict) else []
        keys = f"; it has {', '.join(lists[:_SHOWN])}" if lists else ""
        raise RequestError(f"{path}: {where} is no list of records; give records{keys}")
    return found


def _json_lines(path: Path) -> Iterator[Any]:
    try:
        with path.open(encoding="utf-8") as f:
            for number, line in enumerate(f, start=1):
                if line.strip():
                    yield _json_line(path, number, line)
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8 text ({error.reason})") from error


def _json_line(path: Path, number: int, line: str) -> Any:
    return parse_json(line, f"{path}:{number}")


def _csv_rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f)
            if len(reader.fieldnames or ()) < 2:
                raise RequestError(f"{path}: a table of texts has columns for the image and its text")
            yield from reader
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"{path}: not a readable CSV file ({error})") from error
