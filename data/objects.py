"""Files of object stores and web servers, as files here: each is fetched once, and kept while it is unchanged there.

What is kept lies in ``objects`` of the cache folder, under a hash of its address and of what the store says of it (ETag, size, time
of change): an object that was written anew is fetched anew. A part that fails is asked for again, a few times, later each time.
The longest unused go first where all would take more than :data:`MOST_BYTES`. Stores are spoken to by
fsspec, buckets through obstore; credentials are those of its variables (``AWS_ACCESS_KEY_ID`` and so on).
"""

from __future__ import annotations

import contextlib
import functools
import os
import posixpath
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from rsedge.data.errors import MissingCapability, RequestError, missing_extra
from rsedge.data.files import atomic_path, sha256_of, write_bytes
from rsedge.data.folders import cache_folder
from rsedge.data.kept_folders import hold, make_room

MOST_BYTES = 20 << 30
PART, TRIES, WAIT_S = 4 << 20, 4, 0.25
"""Bytes that are asked for at once; how often; seconds before the second time, twice as long before each further one."""
ANSWER_S = 60
"""Seconds for which an answer is waited for."""
_MARK, _WHOLE = ".address", ".whole"
"""Files of a kept folder: of whatever it is begun for, and where all of it is there."""
_HELD = 64
_MAGIC = frozenset("*?[")
_WORDS = ("e_tag", "ETag", "Last-Modified", "size")
"""By what a store says that an object is another one."""
_NO_RIGHT = ("PermissionDeniedError", "UnauthenticatedError")
_held: OrderedDict[Path, int] = OrderedDict()
T = TypeVar("T")


def _bucket_store(scheme: str) -> Any:
    from datetime import timedelta

    from obstore.fsspec import FsspecStore

    # Asked again by :meth:`_Object.ask`, which says after how many times it gave up.
    retries = {"max_retries": 0, "retry_timeout": timedelta(seconds=ANSWER_S)}
    # Plain http is spoken where an endpoint asks for it.
    waits = {"timeout": f"{ANSWER_S}s", "connect_timeout": f"{ANSWER_S}s", "allow_http": True}
    return FsspecStore(scheme, retry_config=retries, client_options=waits)  # type: ignore[arg-type]


def _web_server(scheme: str) -> Any:
    import aiohttp
    import fsspec

    waits = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_S, sock_read=ANSWER_S)
    return fsspec.filesystem(scheme, client_kwargs={"timeout": waits})


@dataclass(frozen=True)
class _Scheme:
    """How addresses begin, by what they are read, and whether objects there can be listed and read in parts."""

    opens: Callable[[str], Any]
    package: str
    bucket: bool


_SCHEMES = {
    **dict.fromkeys(("s3", "gs", "abfs"), _Scheme(_bucket_store, "obstore", True)),
    **dict.fromkeys(("http", "https"), _Scheme(_web_server, "aiohttp", False)),
}
_ADDRESS = re.compile(rf"({'|'.join(_SCHEMES)}):/+(?=[^/])")


def is_address(path: str | Path) -> bool:
    """Whether a path is the address of an object, such as ``s3://bucket/scene.tif``; as a :class:`Path` it has one slash less."""
    return _ADDRESS.match(str(path)) is not None


def address_of(path: str | Path) -> str:
    """An address as it is written, also where it was a :class:`Path` meanwhile."""
    return _ADDRESS.sub(lambda found: f"{found[1]}://", str(path), count=1)


def at_hand(path: Path) -> Path:
    """A file here as it is; of an object its copy here, with what belongs to it beside it.

    Raises:
        RequestError: no such object, it may not be read, or was written meanwhile.
        MissingCapability: the store gives no answer, a package for it is not installed, or there is no room here.
    """
    if not is_address(path):
        return path
    one = _object(path)
    about = one.about(one.name)
    name = PurePosixPath(one.name).name
    parts = _below(one) if about["type"] == "directory" else {name: (one.name, about), **_beside(one)}
    return _kept(one, parts) / name


def listed(path: str | Path, suffixes: Collection[str]) -> list[tuple[str, str]]:
    """Addresses of the scenes that an address names, each with its place below it, without a suffix: of an object itself, of a
    pattern what matches, of a prefix (ending with ``/``) all that have one of the suffixes.

    Raises:
        RequestError, MissingCapability: as :func:`at_hand`; or there is none, or a web server is to be listed.
    """
    one, prefix = _object(path), str(path).endswith("/")
    if not prefix and not _MAGIC & set(one.name):
        return [(one.address, PurePosixPath(one.name).stem)]
    if not one.row.bucket:
        raise RequestError(f"{one.address}: web servers are not listed; name each file, or a list of them (.txt)")
    base = str(PurePosixPath(*_plain_parts(one.name)))
    found = one.ask(lambda: one.fs.find(base) if prefix else one.fs.glob(one.name))
    chosen = [name for name in (_scenes(found, suffixes) if prefix else sorted(found)) if _counts(name, base, suffixes)]
    if not chosen:
        raise RequestError(f"{one.address}: no object there is a scene ({', '.join(sorted(suffixes))})")
    scheme = one.address.partition("://")[0]
    return [(f"{scheme}://{name}", str(PurePosixPath(name).relative_to(base).with_suffix(""))) for name in chosen]


@dataclass(frozen=True)
class _Object:
    """One object, or several that its name stands for."""

    address: str
    row: _Scheme
    fs: Any
    name: str

    def about(self, name: str) -> dict[str, Any]:
        """What the store says of an object."""
        found: dict[str, Any] = self.ask(lambda: self.fs.info(name))
        return found

    def ask(self, call: Callable[[], T]) -> T:
        """What the store answers; asked again where it does not.

        Raises:
            RequestError: there is no such thing, or it may not be read. MissingCapability: no answer came.
        """
        for number in range(TRIES):
            try:
                return call()
            except FileNotFoundError as error:
                raise RequestError(f"{self.address}: no such object; look at the name, and at where it lies") from error
            except ValueError as error:
                raise RequestError(f"{self.address}: is no name of an object ({_line(error)})") from error
            except _faults() as error:
                if (why := _final(error)) is not None:
                    raise RequestError(f"{self.address}: {why}") from error
                if number + 1 == TRIES:
                    raise MissingCapability(
                        f"{self.address}: the store gave no answer, {TRIES} times ({_line(error)}); run the same command again "
                        "when it does"
                    ) from error
            time.sleep(WAIT_S * 2**number)
        raise AssertionError("unreachable")


def _object(path: str | Path) -> _Object:
    """
    Raises:
        MissingCapability: a package for it is not installed.
    """
    address = address_of(path)
    scheme, _, name = address.partition("://")
    name = posixpath.normpath(name) if {".", ".."} & set(name.split("/")) else name
    address, row = f"{scheme}://{name}", _SCHEMES[scheme]
    try:
        fs = row.opens(scheme)
    except ImportError as error:
        raise missing_extra(row.package, "scale", f"reading {scheme}://") from error
    return _Object(address, row, fs, name.rstrip("/") if row.bucket else address)


def _faults() -> tuple[type[Exception], ...]:
    """What connections that fail raise, of the packages that are loaded."""
    found: list[type[Exception]] = [OSError, TimeoutError]
    for module, name in (("aiohttp", "ClientError"), ("obstore.exceptions", "BaseError")):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def _final(error: Exception) -> str | None:
    """Why asking again is of no use; None where it may be."""
    if "NoSuchBucket" in str(error):
        return "there is no such bucket; look at its name and region"
    if (
        isinstance(error, PermissionError)
        or type(error).__name__ in _NO_RIGHT
        or getattr(error, "status", 0) in (401, 403)
    ):
        return (
            f"may not be read ({_line(error)}); give credentials by the store's own variables, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        )
    return None


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _plain_parts(name: str) -> Iterator[str]:
    """Parts of a name before the first that is a pattern."""
    for part in PurePosixPath(name).parts:
        if _MAGIC & set(part):
            return
        yield part


def _counts(name: str, base: str, suffixes: Collection[str]) -> bool:
    """Whether an object below ``base`` is a scene, and not hidden."""
    inside = PurePosixPath(name).relative_to(base)
    return inside.suffix.lower() in suffixes and not any(part.startswith(".") for part in inside.parts)


def _scenes(found: Collection[str], suffixes: Collection[str]) -> list[str]:
    """Names of objects; of those below one that has a scene's suffix (a Zarr store), its own alone."""
    chosen: dict[str, None] = {}
    for name in sorted(found):
        path = PurePosixPath(name)
        whole = next((one for one in reversed(path.parents) if one.suffix.lower() in suffixes), path)
        chosen[str(whole)] = None
    return list(chosen)


def _beside(one: _Object) -> dict[str, tuple[str, Any]]:
    """What belongs to an object, by its file name: a GeoTIFF's mask, an ENVI header's data."""
    whole, suffix = PurePosixPath(one.name), PurePosixPath(one.name).suffix.lower()
    if suffix == ".hdr" and one.row.bucket:
        stem = str(whole.with_suffix(""))
        known = one.ask(lambda: one.fs.ls(str(whole.parent), detail=False))
        names = [
            name for name in known if name != one.name and stem in (name, str(PurePosixPath(name).with_suffix("")))
        ]
    else:
        mask = f"{one.name}.msk"
        names = [mask] if suffix in (".tif", ".tiff") and one.ask(lambda: one.fs.exists(mask)) else []
    return {PurePosixPath(name).name: (name, one.about(name)) for name in names}


def _below(one: _Object) -> dict[str, tuple[str, Any]]:
    """All objects below a name, by their places in its folder."""
    top = PurePosixPath(one.name)
    found = one.ask(lambda: one.fs.find(one.name, detail=True))
    return {
        str(PurePosixPath(top.name) / PurePosixPath(name).relative_to(top)): (name, about)
        for name, about in found.items()
    }


def _kept(one: _Object, parts: dict[str, tuple[str, Any]]) -> Path:
    """The folder with these objects under these names; fetched where it is not there yet.

    Raises:
        RequestError: one was written while it was read. MissingCapability: as :func:`at_hand`.
    """
    known = {place: _words_of(about) for place, (_, about) in parts.items()}
    store = cache_folder() / "objects"
    folder = store / sha256_of([one.address, known])[:32]
    _hold(folder)
    if not (folder / _WHOLE).is_file():
        write_bytes(folder / _MARK, one.address.encode())
        need = sum(_size(about) for _, about in parts.values())
        make_room(store, _MARK, folder, need, MOST_BYTES, "or set RSEDGE_CACHE to a folder on another disk")
        for place, (name, about) in parts.items():
            _fetch(one, name, _size(about), folder / place)
            os.utime(folder / place, (_changed(about),) * 2)
        if any(_words_of(one.about(name)) != known[place] for place, (name, _) in parts.items()):
            raise RequestError(f"{one.address}: was written while it was read; run the same command again")
        write_bytes(folder / _WHOLE, b"")
    with contextlib.suppress(OSError):
        os.utime(folder / _MARK)
    return folder


def _words_of(about: dict[str, Any]) -> list[str]:
    return [str(about.get(word)) for word in _WORDS]


def _size(about: dict[str, Any]) -> int:
    """Bytes of an object; 0 where a web server does not say it."""
    return int(about.get("size") or 0)


def _changed(about: dict[str, Any]) -> float:
    """When an object was written, as a store says it (seconds since 1970); 0 where it does not: the same for every copy."""
    when = about.get("last_modified") or about.get("Last-Modified")
    if isinstance(when, str):
        with contextlib.suppress(ValueError):
            when = parsedate_to_datetime(when)
    return when.timestamp() if isinstance(when, datetime) else 0.0


def _hold(folder: Path) -> None:
    """Keeps others from removing a folder while this process may read it: the last ones that it asked for."""
    if (known := _held.pop(folder, None)) is not None:
        os.close(known)
    _held[folder] = hold(folder)
    while len(_held) > _HELD:
        os.close(_held.popitem(last=False)[1])


def _fetch(one: _Object, name: str, size: int, target: Path) -> None:
    """Writes an object's bytes, whole or not at all."""
    with atomic_path(target) as made:
        if not one.row.bucket:
            one.ask(lambda: one.fs.get_file(name, str(made)))
            return
        with made.open("wb") as file:
            for start in range(0, size, PART):
                wanted = min(PART, size - start)
                file.write(one.ask(functools.partial(_part, one.fs, name, start, wanted)))


def _part(fs: Any, name: str, start: int, wanted: int) -> bytes:
    """Some bytes of an object.

    Raises:
        OSError: fewer or more came.
    """
    found: bytes = fs.cat_file(name, start=start, end=start + wanted)
    if len(found) != wanted:
        raise OSError(f"{len(found)} bytes came of {wanted}")
    return found
