"""Who made a bundle: Ed25519 signatures over the bytes of its manifest."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.runtimes.manifest import MANIFEST, PUBLIC_KEY, SIGNATURE


def load_public_key(path: Path) -> Any:
    """An Ed25519 public key from PEM.

    Raises:
        RequestError: missing file, or another kind of key.
    """
    if not path.is_file():
        raise RequestError(f"{path}: no such public key file")
    return _public_key(path.read_bytes(), path)


def _public_key(content: bytes, where: Path) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RequestError(f"{where}: not a PEM public key ({error})") from error
    if not isinstance(key, Ed25519PublicKey):
        raise RequestError(f"{where}: not an Ed25519 public key")
    return key


def check_signature(path: Path, folder: Path, content: bytes, key: Path | None) -> str:
    stored, own = folder / SIGNATURE, folder / PUBLIC_KEY
    if key is not None:
        if not stored.is_file():
            raise IntegrityError(f"{path}: not signed ({SIGNATURE} is missing), but a key was given")
        _verify(load_public_key(key), stored, content, f"{path}: the signature does not fit {key}")
        return "trusted"
    if not stored.is_file() or not own.is_file():
        return "none"
    _verify(_public_key(own.read_bytes(), own), stored, content, f"{path}: the signature does not fit {PUBLIC_KEY}")
    return "consistent"


def _verify(key: Any, stored: Path, content: bytes, message: str) -> None:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(base64.b64decode(stored.read_bytes().strip(), validate=True), content)
    except (InvalidSignature, binascii.Error) as error:
        raise IntegrityError(
            f"{message}: {MANIFEST} was altered or signed by someone else; do not use this bundle"
        ) from error
