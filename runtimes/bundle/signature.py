"""Who made a bundle: Ed25519 signatures over the bytes of its manifest, and whom this machine asks for."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.runtimes.bundle.manifest import MANIFEST, PUBLIC_KEY, SIGNATURE
from rsedge.runtimes.bundle.trust import TrustedKey, fingerprint, load_public_key, public_key, trusted_keys

Trust = Literal["trusted", "consistent", "unchecked", "UNSIGNED"]
MAX_MANIFEST, MAX_SIGNATURE = 4 << 20, 4 << 10


@dataclass(frozen=True)
class Envelope:
    """What is read of a bundle before anything in it is believed: the bytes of its manifest, of the signature and of the key
    beside it, where there are such files; or of another signed file (``what``), which holds all three."""

    manifest: bytes
    signature: bytes | None
    key: bytes | None
    what: str = "bundle"

    @property
    def altered(self) -> str:
        """What is wrong where a signature does not fit."""
        return f"{self.signed} was altered or signed by someone else; do not use this {self.what}"

    @property
    def signed(self) -> str:
        """What the signature is over."""
        return MANIFEST if self.what == "bundle" else f"the {self.what}"

    def key_file(self, path: Path) -> Path:
        """Where its key lies: beside a bundle's manifest, or in the file itself."""
        return path / PUBLIC_KEY if self.what == "bundle" else path

    @property
    def lacks(self) -> str:
        """What an unsigned one does not have."""
        return f"{SIGNATURE} is missing" if self.what == "bundle" else "it holds no signature"


@dataclass(frozen=True)
class Signature:
    """What a bundle's signature is worth.

    Attributes:
        trust: ``trusted``: by a key that the user gave or trusts. ``consistent``: by the key inside the bundle, which proves
            nothing about who made it. ``unchecked``: there is one, but no key to hold it against. ``UNSIGNED``: there is none.
        name, fingerprint: of the key, where the signature was checked.
    """

    trust: Trust
    name: str | None = None
    fingerprint: str | None = None

    def __str__(self) -> str:
        mark = f"key fingerprint {self.fingerprint}"
        return {
            "trusted": f"signed by {self.name} ({mark})",
            "consistent": f"signed by the key inside it ({mark}), which proves nothing about who made it; who that is only --key "
            "or `rsedge trust add` can tell",
            "unchecked": f"signed, but there is no key here to check that by ({PUBLIC_KEY} is missing); give --key",
            "UNSIGNED": f"UNSIGNED ({SIGNATURE} is missing): anyone may have made or altered it",
        }[self.trust]

    def record(self) -> dict[str, Any]:
        """For ``--json``."""
        by = None if self.fingerprint is None else {"name": self.name, "fingerprint": self.fingerprint}
        return {"signature": self.trust, "signed_by": by}


def check_signature(path: Path, envelope: Envelope, key: Path | None) -> Signature:
    """Holds a bundle's signature against the key given, else against the trusted ones, else against the key inside it.

    Raises:
        RequestError: ``key`` is no public key.
        IntegrityError: a signature is asked for and missing, or does not fit; or the store of trusted keys is damaged.
    """
    demanded = trusted_keys() if key is None else (_given(key),)
    if key is not None and key.resolve().is_relative_to(path.resolve()):
        raise RequestError(
            f"{key}: lies in the bundle itself, so it proves nothing of who made it; take the key from those who make the bundles"
        )
    if demanded:
        return _demanded(path, envelope, demanded, None if key is None else str(key))
    if envelope.signature is None:
        return Signature("UNSIGNED")
    if envelope.key is None:
        return Signature("unchecked")
    try:
        own = public_key(envelope.key, envelope.key_file(path))
    except RequestError as error:
        raise IntegrityError(f"{error}; copy the {envelope.what} again") from error
    place = envelope.key_file(path)
    if not _fits(own, envelope):
        key_there = place.name if envelope.what == "bundle" else "the key inside it"
        raise IntegrityError(f"{path}: the signature does not fit {key_there}: {envelope.altered}")
    return Signature("consistent", place.name, fingerprint(own))


def _given(path: Path) -> TrustedKey:
    key = load_public_key(path)
    return TrustedKey(str(path), fingerprint(key), path, key)


def _demanded(path: Path, envelope: Envelope, keys: tuple[TrustedKey, ...], given: str | None) -> Signature:
    if envelope.signature is None:
        raise IntegrityError(
            f"{path}: UNSIGNED ({envelope.lacks}), but {_who(keys, given, envelope.what)}; get the signed {envelope.what}"
        )
    for one in keys:
        if _fits(one.key, envelope):
            return Signature("trusted", one.name, one.fingerprint)
    raise IntegrityError(
        f"{path}: the signature does not fit, and {_who(keys, given, envelope.what)}: {_otherwise(path, envelope, given)}"
    )


def _otherwise(path: Path, envelope: Envelope, given: str | None) -> str:
    """What is wrong where nobody who is asked for has signed: another one has, or the manifest was altered."""
    try:
        own = None if envelope.key is None else public_key(envelope.key, envelope.key_file(path))
    except RequestError:
        own = None
    if own is None or not _fits(own, envelope):
        return envelope.altered
    how = "give it with --key" if given is not None else "rsedge trust add KEY.pub"
    return (
        f"{envelope.signed} was altered or signed by someone else, with the key of fingerprint {fingerprint(own)}; do not use this "
        f"{envelope.what} unless that key is one of yours: then take its public half from those who hold it, by another way "
        f"than the {envelope.what} came, and {how}"
    )


def _who(keys: tuple[TrustedKey, ...], given: str | None, what: str) -> str:
    if given is not None:
        return f"--key {given} must have signed it"
    listed = ", ".join(k.label for k in keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
    return f"this machine takes only {what}s signed by a key it trusts: {listed} (rsedge trust list)"


def _fits(key: Any, envelope: Envelope) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(base64.b64decode((envelope.signature or b"").strip(), validate=True), envelope.manifest)
    except (InvalidSignature, binascii.Error):
        return False
    return True
