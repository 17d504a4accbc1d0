"""Which shared libraries a library asks for (DT_NEEDED), and the newest glibc symbols it needs; read from the file itself."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

_LOAD, _DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB = 1, 5
_GLIBC = re.compile(rb"GLIBC_(\d+)\.(\d+)")


def is_elf(path: Path) -> bool:
    """Whether a file is an ELF one."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def needed(content: bytes) -> list[str]:
    """Names of the libraries that a 64-bit ELF file asks for, in their order; none of one without a dynamic section.

    Raises:
        ValueError: it is no 64-bit ELF file, or a damaged one.
    """
    if content[:5] != b"\x7fELF\x02":
        raise ValueError("no 64-bit ELF file")
    order = "<" if content[5] == 1 else ">"
    try:
        return _needed(content, order)
    except (struct.error, IndexError, StopIteration) as error:
        raise ValueError(f"a damaged ELF file ({error})") from error


def _needed(content: bytes, order: str) -> list[str]:
    heads = _heads(content, order)
    loads = [(address, begin, size) for kind, size, begin, address, _ in heads if kind == _LOAD]
    dynamic = next(((begin, size) for kind, size, begin, _, _ in heads if kind == _DYNAMIC), None)
    if dynamic is None:
        return []
    start, length = dynamic
    pairs = [struct.unpack_from(f"{order}qQ", content, start + i) for i in range(0, length, 16)]
    texts = next(value for tag, value in pairs if tag == _DT_STRTAB)
    base = next(begin + texts - address for address, begin, size in loads if address <= texts < address + size)
    found = []
    for value in (value for tag, value in pairs if tag == _DT_NEEDED):
        place = base + value
        found.append(content[place : content.index(b"\0", place)].decode())
    return found


def _heads(content: bytes, order: str) -> list[tuple[int, int, int, int, int]]:
    """Kind, size in the file, offset, address and alignment of every part."""
    (offset,) = struct.unpack_from(f"{order}Q", content, 32)
    size, count = struct.unpack_from(f"{order}HH", content, 54)
    rows = [struct.unpack_from(f"{order}IIQQQQQQ", content, offset + i * size) for i in range(count)]
    return [(kind, length, begin, address, align) for kind, _, begin, address, _, length, _, align in rows]


def loadable(content: bytes) -> bool:
    """Whether every part that is mapped lies in the file as the loader asks: tools that edit libraries have broken that."""
    parts = _heads(content, "<" if content[5] == 1 else ">")
    return all((begin - address) % max(1, align) == 0 for kind, _, begin, address, align in parts if kind == _LOAD)


def closure(roots: Iterable[str], libraries: Mapping[str, Path]) -> set[str]:
    """Of ``libraries`` (name -> file) those that ``roots`` reach, themselves included; others are the system's."""
    found: set[str] = set()
    waiting = [name for name in roots if name in libraries]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [one for one in needed(libraries[name].read_bytes()) if one in libraries]
    return found


def glibc(content: bytes) -> tuple[int, int]:
    """The newest version of glibc whose symbols a file names; (0, 0) where it names none."""
    return max(((int(a), int(b)) for a, b in _GLIBC.findall(content)), default=(0, 0))
