"""Keys that anybody can sign with are none."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from rsedge.data.errors import RequestError
from rsedge.runtimes.bundle.curve import P, weakness
from rsedge.runtimes.bundle.trust import public_key


def encoded(y: int, sign: int = 0) -> bytes:
    return (y | sign << 255).to_bytes(32, "little")


def forged(key: bytes) -> bool:
    """Whether a signature fits that was made without a private key: the neutral point and 0."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(encoded(1) + bytes(32), b"anything")
    except InvalidSignature:
        return False
    return True


@given(st.binary(min_size=32, max_size=32))
def test_every_private_keys_own_is_sound(seed: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    assert weakness(key.public_bytes(Encoding.Raw, PublicFormat.Raw)) is None


@pytest.mark.parametrize("key", [encoded(1), encoded(P - 1), encoded(0), encoded(0, 1)])
def test_points_of_small_order_are_weak(key: bytes) -> None:
    assert "anybody can sign" in (weakness(key) or "")


def test_what_can_be_forged_is_weak() -> None:
    assert forged(encoded(1)) and not forged(encoded(7))
    pem = Ed25519PublicKey.from_public_bytes(encoded(1)).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(RequestError, match="anybody can sign"):
        public_key(pem, "weak.pub")


@pytest.mark.parametrize(
    "key", [b"\xff" * 32, encoded(P), encoded(P + 1), encoded(1, 1), encoded(P - 1, 1), encoded(2)]
)
def test_bytes_that_are_no_point(key: bytes) -> None:
    assert "no point" in (weakness(key) or "")
