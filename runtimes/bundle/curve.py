"""Whether an Ed25519 public key is one that its owner alone can sign for (RFC 8032, section 5.1).

Libraries load any 32 bytes as a key. Nobody can sign with those that are no point of the curve, and with the eight points of small
order everybody can.
"""

from __future__ import annotations

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
_ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
_NEUTRAL = (0, 1)

Point = tuple[int, int]


def weakness(key: bytes) -> str | None:
    """Why a key (32 bytes) is none to trust, in words; None where it is sound."""
    found = _decoded(key)
    if found is None:
        return "is no Ed25519 key: its bytes are no point of the curve, it was damaged"
    for _ in range(3):
        found = _doubled(found)
    return "is a key that anybody can sign with (a point of small order)" if found == _NEUTRAL else None


def _decoded(key: bytes) -> Point | None:
    number = int.from_bytes(key, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * _ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    return (x if x & 1 == sign else P - x), y


def _doubled(point: Point) -> Point:
    x, y = point
    both = D * x * x * y * y
    return 2 * x * y * pow(1 + both, -1, P) % P, (y * y + x * x) * pow(1 - both, -1, P) % P
