"""What a device builds of a bundle (engines, compiled models, kernel times): kept outside the bundle, signed by the device.

A bundle is signed by whoever made it; nothing that was added to it later is. So what ``rsedge build`` makes lies in a folder of
the user's cache, closed to everybody else, under the bundle's manifest, the runtime and the hardware it was made for. Each entry
has a record that a key made on this device on first use has signed, with the SHA-256 of what was built. Bundles never bring one.

The folder may be removed at any time: what is missing is built anew.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.data.files import atomic_path, write_bytes
from rsedge.data.folder_lock import folder_lock
from rsedge.data.folders import CACHE_VARIABLE, cache_folder
from rsedge.data.record import Record
from rsedge.runtimes.checked import read_checked

RECORD, KEY = "record.json", "device.key"
Kind = str
"""What was built, in small letters: ``engine``, ``blob``, ``timing``, or what another backend makes."""
_LARGEST_RECORD = 1 << 20
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Entry(Record):
    """What the device signs: of which bundle, for what, which bytes, and what their builder says of them."""

    kind: Kind = Field(pattern=r"^[a-z]+$")
    manifest_sha256: str
    hardware: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)
    about: dict[str, Any]


class _Signed(Record):
    """``record.json``: the entry as text, and the signature (base64) over these very characters."""

    entry: str
    signature: str


@dataclasses.dataclass(frozen=True)
class Built:
    """Something built on this device, checked: its bytes, and what its builder said of it."""

    path: Path
    about: dict[str, Any]
    content: bytes = dataclasses.field(repr=False)
    rebuild: str

    def __str__(self) -> str:
        return str(self.path)


@dataclasses.dataclass(frozen=True)
class Slot:
    """The place of one entry.

    Args:
        bundle: names the bundle in messages.
        hardware: what it is built for, e.g. the processor's or the GPU's own name.
    """

    kind: Kind
    manifest_sha256: str
    hardware: str
    bundle: Path

    @property
    def folder(self) -> Path:
        hardware = hashlib.sha256(self.hardware.encode()).hexdigest()
        return device_folder() / f"{self.kind}-{self.manifest_sha256[:32]}-{hardware[:16]}"

    @property
    def rebuild(self) -> str:
        """What to do about an entry that is of no use."""
        more = " --rebuild" if self.kind == "timing" else ""
        return f"build it anew: rsedge build {self.bundle}{more}"


def device_folder() -> Path:
    """The folder of all entries and of the key."""
    return cache_folder() / "device"


def recorded(record: Path) -> dict[str, Any] | None:
    """What a record says was built, for reading: its signature is not looked at. None where it is no such record."""
    try:
        if not record.is_file() or record.stat().st_size > _LARGEST_RECORD:
            return None
        signed = _Signed.model_validate_json(record.read_bytes())
        return Entry.model_validate_json(signed.entry).model_dump()
    except (OSError, ValidationError):
        return None


def any_for(kind: Kind, manifest_sha256: str) -> bool:
    """Whether something of this kind was built here of a bundle, for whatever hardware.

    Raises:
        MissingCapability: the place of what is built is out of reach.
    """
    try:
        folder = device_folder()
    except MissingCapability:  # nowhere to keep anything, so nothing is kept
        return False
    try:
        return any(folder.glob(f"{kind}-{manifest_sha256[:32]}-*"))
    except OSError as error:
        raise MissingCapability(
            f"{folder}: cannot be read ({error.strerror}); name another place for what is built here: {CACHE_VARIABLE}=FOLDER"
        ) from error


def load(slot: Slot) -> Built | None:
    """What was built; None where nothing was.

    Raises:
        IntegrityError: folder, record or content are not as the device left them; says how to mend it.
        RequestError: others may write to the folder, or it belongs to another user.
    """
    if not os.path.lexists(slot.folder):
        return None
    with folder_lock(device_folder(), reading=True):
        return _loaded(slot)


def _loaded(slot: Slot) -> Built:
    place = slot.folder / RECORD
    for folder in (device_folder(), slot.folder):
        _check_private(folder, stat.S_IWGRP | stat.S_IWOTH)
    entry = _verified(place, slot)
    expected = {"kind": slot.kind, "manifest_sha256": slot.manifest_sha256, "hardware": slot.hardware}
    if entry.model_dump(include=set(expected)) != expected:
        raise IntegrityError(f"{place}: is the record of another bundle or device; {slot.rebuild}")
    path = slot.folder / _name(slot.kind, entry.sha256)
    try:
        content = read_checked(path, entry.bytes, entry.sha256)
    except IntegrityError as error:
        raise IntegrityError(f"{error}; {slot.rebuild}") from error
    return Built(path, entry.about, content, slot.rebuild)


def store(slot: Slot, content: bytes, about: dict[str, Any]) -> Path:
    """Keeps what was built, in place of an older one; returns its file. The record is written last, over all others.

    Raises:
        RequestError: the folder belongs to another user or is open to others. MissingCapability: the disk is full.
    """
    _make_private(device_folder())
    with folder_lock(device_folder()):
        return _stored(slot, content, about)


def _stored(slot: Slot, content: bytes, about: dict[str, Any]) -> Path:
    key = _key(device_folder())
    _make_private(slot.folder)
    sha256 = hashlib.sha256(content).hexdigest()
    path = slot.folder / _name(slot.kind, sha256)
    for place in (path, slot.folder / RECORD):
        _clear(place)
    write_bytes(path, content)
    text = Entry(
        kind=slot.kind,
        manifest_sha256=slot.manifest_sha256,
        hardware=slot.hardware,
        sha256=sha256,
        bytes=len(content),
        about=about,
    ).model_dump_json()
    signature = base64.b64encode(key.sign(text.encode())).decode()
    write_bytes(slot.folder / RECORD, _Signed(entry=text, signature=signature).model_dump_json().encode())
    for old in slot.folder.iterdir():
        if old.name not in (RECORD, path.name) and old.is_file():
            old.unlink(missing_ok=True)
    return path


def _clear(place: Path) -> None:
    """Removes what is no plain file (a link, a pipe, a folder), where one is written."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    elif os.path.lexists(place) and (place.is_symlink() or not place.is_file()):
        place.unlink()


def drop(slot: Slot) -> None:
    """Removes an entry, if it is there."""
    with folder_lock(device_folder()):
        shutil.rmtree(slot.folder, ignore_errors=True)


def _name(kind: Kind, sha256: str) -> str:
    return f"{sha256[:16]}.{'cache' if kind == 'timing' else kind}"


def _verified(place: Path, slot: Slot) -> Entry:
    """The record of an entry, signed by this device."""
    from cryptography.exceptions import InvalidSignature

    altered = IntegrityError(f"{place}: was altered, or written by another device; {slot.rebuild}")
    try:
        signed = _Signed.model_validate_json(_own_file(place, stat.S_IWGRP | stat.S_IWOTH))
        signature = base64.b64decode(signed.signature, validate=True)
    except (OSError, ValidationError, binascii.Error, ValueError) as error:
        raise altered from error
    key = _key(device_folder(), make=False, slot=slot)
    try:
        key.public_key().verify(signature, signed.entry.encode())
        return Entry.model_validate_json(signed.entry)
    except (InvalidSignature, ValidationError, ValueError) as error:
        raise altered from error


def _key(folder: Path, make: bool = True, slot: Slot | None = None) -> Any:
    """The device's own private key, made on first use.

    Raises:
        RequestError: it is not readable by its owner alone, or no key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    place = folder / KEY
    if not os.path.lexists(place):
        if not make:
            raise IntegrityError(f"{place}: is gone, so nothing here can be trusted; {slot.rebuild if slot else ''}")
        _make_key(place)
    mend = "remove it, and build anew what was built here: rsedge build BUNDLE"
    try:
        key = load_pem_private_key(_own_file(place, _OTHERS), None)
    except (ValueError, TypeError) as error:
        raise IntegrityError(f"{place}: is no private key ({error}); {mend}") from error
    except OSError as error:
        raise IntegrityError(f"{place}: cannot be read ({error.strerror}); {mend}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise IntegrityError(f"{place}: is no Ed25519 key; {mend}")
    return key


def _make_key(place: Path) -> None:
    """Two processes that are first at once agree on one key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        with atomic_path(place, private=True, replace=False) as temporary:
            temporary.write_bytes(pem)
    except RequestError:
        if not place.exists():
            raise


def _make_private(folder: Path) -> None:
    """A folder that only its owner may enter.

    Raises:
        RequestError: it belongs to another user, is open to others, or cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise MissingCapability(
            f"{folder}: cannot be made ({error.strerror}); name another place for what is built here: {CACHE_VARIABLE}=FOLDER"
        ) from error
    _check_private(folder, stat.S_IWGRP | stat.S_IWOTH)


def _own_file(path: Path, forbidden: int) -> bytes:
    """A small file that only its owner may have written; a pipe does not make us wait, a link is not followed.

    Raises:
        RequestError: as :func:`_check_status`. OSError: it cannot be read. ValueError: no plain file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        _check_status(path, status, forbidden)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("no plain file")
        return os.read(handle, _LARGEST_RECORD)
    finally:
        os.close(handle)


def _check_private(path: Path, forbidden: int) -> None:
    """Refuses a folder that is not the user's own; see :func:`_check_status`."""
    try:
        status = path.lstat()
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be looked at ({error.strerror})") from error
    _check_status(path, status, forbidden)


def _check_status(path: Path, status: os.stat_result, forbidden: int) -> None:
    """Refuses what another user owns, links, and what the mode opens to others.

    Raises:
        RequestError: says how to mend it.
    """
    if status.st_uid != os.geteuid():
        raise RequestError(
            f"{path}: belongs to another user (number {status.st_uid}), so what lies there is not this device's own; remove "
            f"it, or name another place: {CACHE_VARIABLE}=FOLDER"
        )
    if stat.S_ISLNK(status.st_mode):
        raise RequestError(f"{path}: is a link; what a device builds lies in a folder of its own, remove the link")
    if status.st_mode & forbidden:
        bits = "u=rwx,go=" if stat.S_ISDIR(status.st_mode) else "u=rw,go="
        raise RequestError(
            f"{path}: is open to other users (mode {stat.S_IMODE(status.st_mode):o}), so what lies there may be theirs; if "
            f"you trust it: chmod {bits} {path}"
        )
