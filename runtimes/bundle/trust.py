"""Keys that this machine trusts: a folder of Ed25519 public keys, one ``NAME.pub`` each.

While it holds a key, every bundle must be signed by one of its keys. There are two folders: the user's own, and one of the whole
machine for services and boards; what is in either counts. A folder that is there but damaged, empty or open to others is an error:
a policy never goes away by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.data.files import write_bytes
from rsedge.data.folder_lock import folder_lock
from rsedge.data.folders import config_folder, is_file
from rsedge.runtimes.bundle.curve import weakness

SYSTEM = Path("/etc/rsedge/trusted")
SUFFIX = ".pub"
MAX_KEY_BYTES, MAX_KEYS = 16 << 10, 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHORT = 16
_PEM_BEGIN = b"-----BEGIN "


@dataclass(frozen=True)
class TrustedKey:
    """A public key with the name by which the user knows it; ``key`` checks signatures."""

    name: str
    fingerprint: str
    file: Path
    key: Any

    @property
    def label(self) -> str:
        """Name and the beginning of the fingerprint."""
        return f"{self.name} ({self.fingerprint[:_SHORT]}...)"


def user_folder() -> Path | None:
    """The user's folder of trusted keys; None for a user without a home."""
    config = config_folder()
    return None if config is None else config / "trusted"


def trusted_keys() -> tuple[TrustedKey, ...]:
    """All keys of this machine and of the user; none where there is no folder at all.

    Raises:
        IntegrityError: a folder is damaged, empty, or open to others.
    """
    folders = [f for f in (SYSTEM, user_folder()) if f is not None]
    return tuple(key for folder in folders for key in _read(folder))


def _read(folder: Path) -> list[TrustedKey]:
    """The keys of a folder, while nobody adds or removes one."""
    with folder_lock(folder.parent, reading=True) as held:
        try:
            return _keys_in(folder)
        except IntegrityError:
            if held:
                raise
    with folder_lock(folder.parent, reading=True):  # the folder above has been made meanwhile, or never will be
        return _keys_in(folder)


def _keys_in(folder: Path) -> list[TrustedKey]:
    try:
        found = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        _check_gone(folder)
        return []
    except OSError as error:
        raise IntegrityError(f"{folder}: cannot be read ({error.strerror}), so nobody can be trusted by it") from error
    _check_owner(folder, found)
    _check_above(folder)
    try:
        files = sorted(f for f in folder.iterdir() if not f.name.startswith("."))
    except OSError as error:
        raise IntegrityError(f"{folder}: cannot be read ({error.strerror}), so nobody can be trusted by it") from error
    if not files:
        raise IntegrityError(
            f"{folder}: is there but holds no key, so nobody is trusted; add one "
            f"(rsedge trust add KEY.pub{_option(folder)}) or remove the folder"
        )
    if len(files) > MAX_KEYS:
        raise IntegrityError(f"{folder}: holds more than {MAX_KEYS} files; it is no folder of trusted keys")
    return [_stored(file) for file in files]


def _check_gone(folder: Path) -> None:
    """Tells a folder that was never made from one that is out of reach: a link to nothing (a disk that is not there), or a file in
    its way. A device in its way (a home at ``/dev/null``) is what users without a home have."""
    for place in (folder, *folder.parents):
        try:
            mode = place.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise IntegrityError(
                f"{place}: cannot be read ({error.strerror}), so nobody can be trusted by it"
            ) from error
        if stat.S_ISLNK(mode) and not place.exists():
            raise IntegrityError(
                f"{place}: is a link to nothing, so the folder of trusted keys is out of reach; mend or remove it"
            )
        if stat.S_ISREG(mode):
            raise IntegrityError(f"{place}: is a file where the folder of trusted keys would lie; remove it")
        return


def _check_above(folder: Path) -> None:
    """Whoever may write to the folder above can put another one in its place, or take it away.

    Groups may: many systems give every user one of their own.
    """
    for place in list(folder.parents)[:2]:
        found = place.stat()
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            raise IntegrityError(
                f"{place}: others can replace the folder of trusted keys in it; run: chmod o-w {place}"
            )
        if found.st_uid not in (0, os.geteuid()):
            raise IntegrityError(
                f"{place}: belongs to another user, who could replace the folder of trusted keys in it; run: "
                f"chown {os.geteuid()} {place}"
            )


def _option(folder: Path) -> str:
    """What a command needs beside to act on this folder."""
    return " --system" if folder == SYSTEM else ""


def _check_owner(folder: Path, found: os.stat_result) -> None:
    if not stat.S_ISDIR(found.st_mode):
        raise IntegrityError(f"{folder}: is no folder; trusted keys lie in a folder of this name")
    if found.st_uid not in (0, os.geteuid()):
        raise IntegrityError(
            f"{folder}: belongs to another user, who could add keys; run: chown {os.geteuid()} {folder}"
        )
    if found.st_mode & 0o022:
        raise IntegrityError(f"{folder}: others can add keys to it; run: chmod go-w {folder}")


def _stored(file: Path) -> TrustedKey:
    """A key of the folder; whatever is no key there means damage."""
    mend = f"remove it (rsedge trust remove {file.stem}{_option(file.parent)}) and add it again"
    if file.suffix != SUFFIX or _NAME.fullmatch(file.stem) is None:
        raise IntegrityError(f"{file}: is no trusted key (they are called NAME{SUFFIX}); remove it")
    try:
        found = file.lstat()
        if stat.S_ISDIR(found.st_mode):
            raise IntegrityError(f"{file}: is a folder, no trusted key; remove it (rm -r)")
        if not stat.S_ISREG(found.st_mode):
            raise IntegrityError(f"{file}: is no plain file; {mend}")
        if found.st_uid not in (0, os.geteuid()):
            raise IntegrityError(f"{file}: belongs to another user; run: chown {os.geteuid()} {file}")
        if found.st_mode & 0o022:
            raise IntegrityError(f"{file}: others can write to it; run: chmod go-w {file}")
        content = file.read_bytes() if found.st_size <= MAX_KEY_BYTES else b""
    except OSError as error:
        raise IntegrityError(f"{file}: cannot be read ({error.strerror}); {mend}") from error
    try:
        key = public_key(content, file)
    except RequestError as error:
        raise IntegrityError(f"{error}; the store of trusted keys is damaged: {mend}") from error
    return TrustedKey(file.stem, fingerprint(key), file, key)


def add_key(path: str | Path, name: str | None = None, system: bool = False) -> TrustedKey:
    """Trusts the public key in ``path`` from now on; one that is trusted already stays as it is.

    Args:
        name: how the key is called here; the file's own name when not given.
        system: for the whole machine instead of for this user.

    Raises:
        RequestError: no public key there, a name that does not fit or is another key's.
        MissingCapability: the folder cannot be written.
    """
    path = Path(path)
    key = load_public_key(path)
    name, folder = path.stem if name is None else name, _folder(system)
    if _NAME.fullmatch(name) is None:
        raise RequestError(
            f"--name {name}: a name has up to 64 letters, digits, '.', '_' or '-', and begins with a letter or digit"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingCapability(f"{folder}: cannot be written ({error.strerror}){_as_root(system)}") from error
    with folder_lock(folder.parent):
        return _added(folder, name, key, system)


def _added(folder: Path, name: str, key: Any, system: bool) -> TrustedKey:
    mark = fingerprint(key)
    known = _keys_in(folder) if _names(folder) else []
    for one in known:
        if one.fingerprint == mark:
            return one
        if one.name == name:
            raise RequestError(
                f"{one.file}: another key is called '{name}' already; give --name, or first rsedge trust remove "
                f"{name}{_option(folder)}"
            )
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    file = folder / f"{name}{SUFFIX}"
    try:
        folder.mkdir(exist_ok=True, mode=0o755 if system else 0o700)
        folder.chmod(0o755 if system else 0o700)
        try:
            write_bytes(file, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        except BaseException:
            _remove_if_empty(folder)  # an empty one would say that nobody is trusted
            raise
        file.chmod(0o644)
    except OSError as error:
        raise MissingCapability(f"{file}: cannot be written ({error.strerror}){_as_root(system)}") from error
    return TrustedKey(name, mark, file, key)


def remove_key(name: str, system: bool = False) -> int:
    """Trusts a key no longer, by its name or the beginning (8 digits or more) of its fingerprint; returns how many keys are left.

    Other files of the folder that hold the same key go with it. With the last key the folder goes too: from then on no signature is
    asked for.

    Raises:
        RequestError: no such key, or several.
        MissingCapability: the folder cannot be written.
    """
    folder = _folder(system)
    with folder_lock(folder.parent):
        return _removed(folder, name, system)


def _removed(folder: Path, name: str, system: bool) -> int:
    names = _names(folder)
    if name not in names:
        found = _keys_in(folder) if names else []
        marks = {k.fingerprint: k.name for k in found if len(name) >= 8 and k.fingerprint.startswith(name)}
        if len(marks) != 1:
            listed = ", ".join(sorted(names)) or "none"
            raise RequestError(
                f"{folder}: no one key '{name}' is trusted there (keys: {listed}); see rsedge trust list"
            )
        (name,) = marks.values()
    file = folder / f"{name}{SUFFIX}"
    gone = [
        file,
        *(folder / f"{n}{SUFFIX}" for n in sorted(names - {name}) if _same_key(file, folder / f"{n}{SUFFIX}")),
    ]
    try:
        for file in gone:
            file.unlink()
        left = len(names) - len(gone)
        if not left:
            _remove_if_empty(folder)
    except OSError as error:
        raise MissingCapability(f"{file}: cannot be removed ({error.strerror}){_as_root(system)}") from error
    return left


def _same_key(file: Path, other: Path) -> bool:
    """Whether both hold one key; a damaged file holds none."""
    with contextlib.suppress(RequestError):
        return fingerprint(load_public_key(file)) == fingerprint(load_public_key(other))
    return False


def _remove_if_empty(folder: Path) -> None:
    """A key that is added meanwhile stays, and the folder with it: the policy never goes by itself."""
    for scrap in (f for f in folder.iterdir() if f.name.startswith(".") and f.is_file()):
        scrap.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _folder(system: bool) -> Path:
    folder = SYSTEM if system else user_folder()
    if folder is None:
        raise MissingCapability(
            "this user has no home folder to keep trusted keys in; set XDG_CONFIG_HOME, or give --system"
        )
    return folder


def _names(folder: Path) -> set[str]:
    """Names of a folder's key files, whatever is in them."""
    try:
        return {f.stem for f in folder.iterdir() if f.suffix == SUFFIX and not f.name.startswith(".")}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise IntegrityError(f"{folder}: cannot be read ({error.strerror})") from error


def _as_root(system: bool) -> str:
    return "; keys of the whole machine are the administrator's: run it as root" if system else ""


def load_public_key(path: Path) -> Any:
    """An Ed25519 public key from PEM.

    Raises:
        RequestError: missing file, or another kind of key.
    """
    if not is_file(path):
        raise RequestError(f"{path}: no such public key file")
    try:
        with path.open("rb") as file:
            return public_key(file.read(MAX_KEY_BYTES + 1), path)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error


def public_key(content: bytes, where: str | Path) -> Any:
    """An Ed25519 public key from the bytes of a PEM file; ``where`` names them in errors.

    Raises:
        RequestError: none, several, another kind of key, or one that others than its owner can sign with.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    if len(content) > MAX_KEY_BYTES:
        raise RequestError(f"{where}: larger than {MAX_KEY_BYTES} bytes; this is no public key")
    if b"PRIVATE KEY" in content:
        raise RequestError(
            f"{where}: is a private key, which signs and stays at home; give the public key made with it (.pub)"
        )
    if content.count(_PEM_BEGIN) > 1:
        raise RequestError(
            f"{where}: holds more than one key or certificate; give each public key in a file of its own"
        )
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RequestError(f"{where}: not a PEM public key ({error})") from error
    if not isinstance(key, Ed25519PublicKey):
        raise RequestError(f"{where}: not an Ed25519 public key")
    if (weak := weakness(key.public_bytes(Encoding.Raw, PublicFormat.Raw))) is not None:
        raise RequestError(f"{where}: {weak}; take the public key from those who make the bundles")
    return key


def fingerprint(key: Any) -> str:
    """SHA-256 (hex) of the key as DER: ``openssl pkey -pubin -in KEY.pub -outform DER | sha256sum`` gives the same."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
