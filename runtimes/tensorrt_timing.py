"""The timing cache: which kernels were fastest, kept so that a rebuild chooses the same ones.

It is pinned by its hash, TensorRT's version and the GPU in ``timing.json``. TensorRT itself only warns when a cache does not
fit; here it is refused, and ``--rebuild`` measures anew.
"""

from __future__ import annotations

from pathlib import Path

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.data.files import read_json, sha256_file, write_bytes, write_json
from rsedge.runtimes.manifest import TIMING_CACHE, TIMING_RECORD


def read_timing(folder: Path, fingerprint: dict[str, str]) -> bytes:
    """The cache in ``folder``, empty where there is none.

    Args:
        fingerprint: ``module``, ``version``, ``gpu``, ``sm`` of this machine.

    Raises:
        IntegrityError: the cache was altered. MissingCapability: made elsewhere; names both sides.
    """
    cache, sidecar = folder / TIMING_CACHE, folder / TIMING_RECORD
    if not cache.is_file():
        return b""
    again = f"measure anew: rsedge build {folder} --rebuild"
    record = read_json(sidecar) if sidecar.is_file() else None
    if not isinstance(record, dict) or any(k not in record for k in (*fingerprint, "sha256")):
        raise RequestError(f"{cache}: {TIMING_RECORD} beside it is missing or no record of it; {again}")
    if sha256_file(cache) != record["sha256"]:
        raise IntegrityError(f"{cache}: truncated or altered (SHA-256 differs from {TIMING_RECORD}); {again}")
    if any(record[k] != v for k, v in fingerprint.items()):
        raise MissingCapability(
            f"{cache}: was measured by {_words(record)}, this machine has {_words(fingerprint)}; times do not carry over, {again}"
        )
    return cache.read_bytes()


def write_timing(folder: Path, content: bytes, fingerprint: dict[str, str]) -> None:
    """Writes the cache and its record; the record goes first away and last there."""
    (folder / TIMING_RECORD).unlink(missing_ok=True)
    write_bytes(folder / TIMING_CACHE, content)
    write_json(folder / TIMING_RECORD, {**fingerprint, "sha256": sha256_file(folder / TIMING_CACHE)})


def drop_timing(folder: Path) -> None:
    """Removes cache and record."""
    for name in (TIMING_RECORD, TIMING_CACHE):
        (folder / name).unlink(missing_ok=True)


def _words(record: dict[str, str]) -> str:
    return f"{record['module']} {record['version']} on {record['gpu']} ({record['sm']})"
