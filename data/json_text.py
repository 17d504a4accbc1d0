"""JSON of strangers: bounded in size, depth and length of numbers, and unambiguous.

Python's reader takes what the standard does not have (NaN, a key twice, half of a sign) and numbers of any length, and gives up on
deep nesting with an error of its own. None of our files holds any of that.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.data.memory import check_memory

MAX_BYTES, LABELS_BYTES = 64 << 20, 1 << 30
"""Of a file; of lists of labels, which are larger (COCO)."""
MAX_DEPTH = 64
_BYTES_PER_VALUE, _COUNTED_FROM, _MEMORY_PER_VALUE = 16, 1 << 20, 100
"""A reader holds a hundred bytes of memory for a value of three letters; files of ours and of labels have more letters each."""
_LEAST, _MOST = -(2**63), 2**64 - 1
_DIGITS = 20


def parse_json(content: bytes | str, where: str | Path, most: int = MAX_BYTES) -> Any:
    """The value in JSON text; ``where`` names it in errors, ``most`` bounds its bytes.

    Raises:
        RequestError: larger, of more values than such a file has, not UTF-8 or no JSON; nested too deeply; a number that no 64
            bits hold, NaN or infinity; a key twice.
        MissingCapability: it would take more than most of this machine's memory.
    """
    if len(content) > most:
        raise RequestError(f"{where}: larger than {most} bytes, more than is read of such a file")
    _check_values(content, where, most // _BYTES_PER_VALUE)
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        value = json.loads(
            text,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
            object_pairs_hook=_object,
        )
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{where}: not valid JSON (half of a sign, \\ud...)") from error
    except RecursionError as error:
        raise RequestError(f"{where}: nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:
        raise RequestError(f"{where}: not valid JSON ({error})") from error
    _check_depth(value, where)
    return value


def read_json(path: str | Path, most: int = MAX_BYTES) -> Any:
    """Reads a JSON file by the rules of :func:`parse_json`.

    Raises:
        RequestError: missing, not readable, or as there; names the file.
    """
    try:
        if (place := Path(path)).exists() and not (place.is_file() or place.is_dir()):
            raise RequestError(f"{path}: no plain file, but a pipe or a device; write it to a file first")
        with place.open("rb") as file:
            content = file.read(most + 1)
    except FileNotFoundError as error:
        raise RequestError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    return parse_json(content, path, most)


def read_object(path: str | Path, most: int = MAX_BYTES) -> dict[str, Any]:
    """A JSON file whose top is an object.

    Raises:
        RequestError: as :func:`read_json`, or it is something else.
    """
    value = read_json(path, most)
    if not isinstance(value, dict):
        raise RequestError(f"{path}: holds {_kind(value)}, not a JSON object ({{...}})")
    return value


def _check_values(content: bytes | str, where: str | Path, most: int) -> None:
    """Counted by commas, those in texts among them: no less than there are."""
    if len(content) <= _COUNTED_FROM:
        return
    values = 1 + (content.count(b",") if isinstance(content, bytes) else content.count(","))
    if values > most:
        raise RequestError(f"{where}: holds {values} values, more than {most}, which are read of such a file")
    check_memory(_MEMORY_PER_VALUE * values, Path(where))


def _integer(text: str) -> int:
    number = int(text) if len(text) <= _DIGITS + 1 else _MOST + 1
    if not _LEAST <= number <= _MOST:
        raise ValueError(f"number of {len(text)} digits, which no 64 bits hold: {text[:24]}...")
    return number


def _float(text: str) -> float:
    number = float(text) if len(text) <= 1000 else math.inf
    if math.isinf(number):
        raise ValueError(f"number too large or too long: {text[:24]}...")
    return number


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"key {name[:60]!r} occurs twice")
            seen.add(name)
    return found


def _check_depth(value: Any, where: str | Path) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [v for outer in level if isinstance(outer, dict | list) for v in _values(outer)]
        level = [v for v in inner if isinstance(v, dict | list)]
        if not level:
            return
    raise RequestError(f"{where}: nested deeper than {MAX_DEPTH} levels")


def _values(outer: dict[str, Any] | list[Any]) -> Any:
    return outer.values() if isinstance(outer, dict) else outer


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else kinds.get(type(value), type(value).__name__)
