"""Ed25519 keys and signatures for bundles. Signed are the bytes of ``manifest.json``, which hashes the rest."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from rsedge.data.errors import RequestError
from rsedge.data.files import write_bytes


def create_key(path: str | Path) -> Ed25519PrivateKey:
    """Makes a private key and writes it as PEM that only its owner can read.

    Raises:
        RequestError: the file exists already; a key is never overwritten.
    """
    path = Path(path)
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_bytes(path, content, private=True, replace=False)
    return key


def load_key(path: str | Path) -> Ed25519PrivateKey:
    """Reads a private key made by :func:`create_key` (or ``openssl genpkey -algorithm ed25519``).

    Raises:
        RequestError: missing, readable by others, encrypted, or no Ed25519 key.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(f"{path}: no such signing key")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise RequestError(f"{path}: others can read this private key; run: chmod 600 {path}")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RequestError(f"{path}: not an unencrypted PEM private key ({error})") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise RequestError(f"{path}: not an Ed25519 private key")
    return key


def load_or_create_key(path: str | Path) -> Ed25519PrivateKey:
    """The key at ``path``, made first if there is none."""
    return load_key(path) if Path(path).exists() else create_key(path)


def public_pem(key: Ed25519PrivateKey) -> bytes:
    """The public half as PEM: what the device is given to trust."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def write_public(key: Ed25519PrivateKey, path: str | Path) -> Path:
    """Writes the public half atomically."""
    write_bytes(path, public_pem(key))
    return Path(path)


def sign(key: Ed25519PrivateKey, content: bytes) -> bytes:
    """Base64 signature over ``content``, one line."""
    return base64.b64encode(key.sign(content)) + b"\n"
