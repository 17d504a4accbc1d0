"""What a command's arguments name: scenes and samples, each with the place of its outputs under a folder.

An argument is a file, a folder, a pattern, a list of paths (.txt), STAC or objects of a store; each form is a row.
Outputs bear their scene's name; of what lies in a folder also the folders between, so that two of one name stay apart.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rsedge.data.errors import RequestError
from rsedge.data.objects import is_address, listed
from rsedge.data.scenes.kinds import kind_of
from rsedge.data.scenes.stac import items_in, names_item

LIST_SUFFIX = ".txt"
_MOST_LINES = 1_000_000
_MAGIC = frozenset("*?[")


@dataclass(frozen=True)
class Source:
    """One scene: ``path`` is what is opened, ``name`` where its outputs lie under a folder, without a suffix."""

    path: Path
    name: str


@dataclass(frozen=True)
class _Listing:
    """What is to be looked for: suffixes that count in folders, and folders of outputs, without links, which hold no scenes."""

    suffixes: Collection[str]
    outputs: frozenset[Path]

    def aside(self, base: Path) -> Callable[[Path], bool]:
        """Whether a path found below ``base`` lies in a folder of outputs there. Where that is ``base`` or above it, scenes and
        outputs lie in one place, and what would be written over is refused by name."""
        top = _real(base)
        folders = self.outputs - {top, *top.parents}

        def lies(path: Path) -> bool:
            real = _real(path)
            return not folders.isdisjoint((real, *real.parents))

        return lies


@dataclass(frozen=True)
class _Form:
    """One form of an argument: whether a text is of it, and what it lists."""

    words: str
    applies: Callable[[str], bool]
    lists: Callable[[str, _Listing], Iterator[Source]]


def sources(
    arguments: Sequence[str | Path],
    suffixes: Collection[str],
    outputs: Sequence[Path],
    on_clash: Callable[[RequestError], None] | None = None,
) -> list[Source]:
    """All scenes that arguments name, in their order, those of folders by name.

    Args:
        suffixes: of what counts in a folder, in lower case.
        outputs: folders of outputs; what folders and patterns find in one of them below themselves is no scene.
        on_clash: called where the outputs of scenes would have one name, which are then left out; else that is an error.

    Raises:
        RequestError: nothing there, a list or a STAC file that cannot be read, or two scenes whose outputs would have one name.
    """
    listing = _Listing(suffixes, frozenset(map(_real, outputs)))
    found: dict[str, Source] = {}
    clashing: set[str] = set()
    for argument in map(str, arguments):
        for source in _form_of(argument).lists(argument, listing):
            other = found.setdefault(source.name, source)
            if other.path.absolute() != source.path.absolute():
                clash = RequestError(
                    f"{source.path}: its outputs would have the name of those of {other.path}, '{source.name}'; rename one, give "
                    "the folder above both (outputs then keep the folders between), or run them into two folders"
                )
                if on_clash is None:
                    raise clash
                on_clash(clash)
                clashing.add(source.name)
    if not found:
        raise RequestError(f"{', '.join(map(str, arguments)) or 'no argument'}: names no scene")
    return [source for name, source in found.items() if name not in clashing]


def _form_of(argument: str) -> _Form:
    return next(form for form in _FORMS if form.applies(argument))


def _of_stac(argument: str, listing: _Listing) -> Iterator[Source]:
    file, _, wanted = argument.partition("#") if not Path(argument).exists() else (argument, "", "")
    items = items_in(Path(file))
    chosen = [item for item in items if not wanted or item.id == wanted]
    if not chosen:
        raise RequestError(f"{file}: has no item of the id '{wanted}'")
    for item in chosen:
        # An item in a file of its own is named by that file, also where a collection links to it.
        alone = item.file != Path(file) or len(items) == 1
        yield Source(item.file if alone else Path(f"{file}#{item.id}"), _plain(item.id))


def _of_list(argument: str, listing: _Listing) -> Iterator[Source]:
    path = Path(argument)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: is no list of paths in UTF-8 ({error})") from error
    if len(lines) > _MOST_LINES:
        raise RequestError(f"{path}: has {len(lines)} lines, a list has up to {_MOST_LINES}; split it")
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        text = text if is_address(text) else str(path.parent / text)
        form = _form_of(text)
        if form is _LIST:
            raise RequestError(f"{path}: line {number}: a list names scenes, not other lists ({text})")
        try:
            yield from form.lists(text, listing)
        except RequestError as error:
            raise RequestError(f"{path}: line {number}: {error}") from error


def _of_objects(argument: str, listing: _Listing) -> Iterator[Source]:
    """Objects are fetched when it is their turn."""
    for address, name in listed(argument, listing.suffixes):
        yield Source(Path(address), name)


def _of_folder(argument: str, listing: _Listing) -> Iterator[Source]:
    folder, found = Path(argument), []
    aside = listing.aside(folder)
    try:
        inside_it = sorted(folder.rglob("*"))
    except OSError as error:  # gone meanwhile, or its disk fails
        raise RequestError(f"{folder}: cannot be listed ({error})") from error
    for path in inside_it:
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        within = any(parent.suffix.lower() in listing.suffixes for parent in inside.parents)
        if path.suffix.lower() in listing.suffixes and not hidden and not within and not aside(path):
            found.append(Source(path, inside.with_suffix("").as_posix()))
    if not found:
        raise RequestError(f"{folder}: holds no scene ({', '.join(sorted(listing.suffixes))})")
    yield from found


def _real(path: Path) -> Path:
    """Without links, as far as they lead anywhere."""
    return Path(os.path.realpath(path))


def _of_pattern(argument: str, listing: _Listing) -> Iterator[Source]:
    matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - absolute patterns too
    parts = Path(argument).parts
    plain = next(number for number, part in enumerate(parts) if _MAGIC & set(part))
    aside = listing.aside(Path(*parts[:plain]))
    found = [path for path in matches if not aside(Path(path))]
    if not found:
        where = " outside of the folder of outputs" if matches else ""
        raise RequestError(f"{argument}: no file matches{where}")
    for path in found:
        yield from _form_of(path).lists(path, listing)


def _of_file(argument: str, listing: _Listing) -> Iterator[Source]:
    path = Path(argument)
    yield Source(path, path.stem)


def _plain(name: str) -> str:
    """An item's id as the name of a file."""
    return "".join("_" if c in '/\\:*?"<>|#' or not c.isprintable() else c for c in name).lstrip(".") or "_"


def _is_folder(argument: str) -> bool:
    path = Path(argument)
    return path.is_dir() and not kind_of(path).is_of(path)


_LIST = _Form("a list of paths", lambda text: text.lower().endswith(LIST_SUFFIX), _of_list)
_FORMS = (
    _Form("STAC", lambda text: names_item(Path(text)), _of_stac),
    _Form("an object store", is_address, _of_objects),
    _LIST,
    _Form("a folder", _is_folder, _of_folder),
    _Form("a pattern", lambda text: bool(_MAGIC & set(text)) and not Path(text).exists(), _of_pattern),
    _Form("a file", lambda text: True, _of_file),
)
