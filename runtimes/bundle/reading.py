"""Bundles: opening one proves that it is whole and, with a key, who made it; verifying one runs its golden vector."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from rsedge.data.arrays import read_arrays
from rsedge.data.bands import InputSpec
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.files import sha256_file
from rsedge.data.folders import is_file, is_folder
from rsedge.data.temporary import TemporaryFolder
from rsedge.runtimes.backend import RuntimeBackend
from rsedge.runtimes.bundle.archive import bundle_zip, folder_envelope, folder_files
from rsedge.runtimes.bundle.golden import GoldenResult, compare
from rsedge.runtimes.bundle.manifest import MANIFEST, UNLISTED, Manifest, Target, unlisted
from rsedge.runtimes.bundle.signature import Signature, check_signature
from rsedge.runtimes.checked import CheckedModel, read_checked
from rsedge.runtimes.child import Contents
from rsedge.runtimes.device_cache import Built
from rsedge.runtimes.registry import known_elsewhere
from rsedge.runtimes.rehearsal import RUN_S, rehearse
from rsedge.runtimes.session import INPUT, LOGITS, VALID, Arrays, Hint, Session


@dataclasses.dataclass(frozen=True)
class Bundle:
    """An opened bundle; ``signature`` says who vouches for it, and what that is worth."""

    path: Path
    folder: Path
    manifest: Manifest
    signature: Signature
    _temporary: TemporaryFolder | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def open(cls, path: str | Path, key: str | Path | None = None) -> Bundle:
        """Opens a bundle folder or ``.zip``: bounds first, then the signature, then what is listed, held against its hashes.

        Args:
            path: the folder that holds ``manifest.json``, or a zip of it.
            key: PEM file of the Ed25519 public key that must have signed the bundle; None asks for one of the keys that this
                machine trusts (:mod:`rsedge.runtimes.bundle.trust`), where it trusts any.

        Raises:
            RequestError: no bundle there, or a broken manifest.
            IntegrityError: out of bounds; a file is missing, extra, truncated or altered; or the signature is wrong, or absent
                although one is asked for.
            MissingCapability: no space to unpack a ``.zip``.
        """
        path, given = Path(path), None if key is None else Path(key)
        if is_folder(path):
            envelope = folder_envelope(path)
            signature = check_signature(path, envelope, given)
            manifest = Manifest.from_bytes(envelope.manifest, path / MANIFEST)
            _check_files(path, path, manifest)
            return cls(path, path, manifest, signature)
        if not is_file(path):
            raise RequestError(f"{path}: no such bundle (a folder with {MANIFEST}, or a .zip of one)")
        with bundle_zip(path) as archive:
            signature = check_signature(path, archive.envelope, given)
            manifest = Manifest.from_bytes(archive.envelope.manifest, path / MANIFEST)
            temporary = TemporaryFolder()
            try:
                archive.unpack(manifest, temporary.path)
                _check_files(path, temporary.path, manifest)
            except BaseException:
                temporary.cleanup()
                raise
        return cls(path, temporary.path, manifest, signature, temporary)

    @property
    def target(self) -> Target:
        return self.manifest.target

    @property
    def input_spec(self) -> InputSpec:
        return self.manifest.input_spec

    @property
    def build(self) -> Mapping[str, Any] | None:
        """How to build what the device runs, where that is for the device to do."""
        return self.manifest.build

    @property
    def backend(self) -> RuntimeBackend:
        """The runtime that it is for.

        Raises:
            MissingCapability: the package that brings it is broken.
        """
        return self.target.backend

    @property
    def manifest_sha256(self) -> str:
        """SHA-256 of what the manifest says; the device's cache knows the bundle by it."""
        return hashlib.sha256(self.manifest.to_bytes()).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Size of all files that the manifest lists."""
        return sum(entry.bytes for entry in self.manifest.files.values())

    def read(self, name: str) -> bytes:
        """The bytes of a listed file, held against the manifest's hash; they are what is to be used, not the file.

        Raises:
            IntegrityError: they are not what the manifest says, or it does not list the file.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise IntegrityError(f"{self.path}: needs '{name}', which {MANIFEST} does not list; get the whole bundle")
        return read_checked(self.folder / name, entry.bytes, entry.sha256)

    def model(self, name: str | None = None) -> CheckedModel:
        """A model of the bundle (None: the one it is for), read and checked as the runtime takes it."""

        def read(place: Path) -> bytes:
            return self.read(place.relative_to(self.folder).as_posix())

        return CheckedModel(self.folder / (name or self.manifest.model_file), read)

    def session(self, threads: int | None = None, device: str | None = None, hint: Hint = "latency") -> Session:
        """The executable, loaded: the model as the bundle brings it, or what ``rsedge build`` made of it on this device.

        Args:
            device: another device of the same runtime, e.g. ``CPU`` for a bundle made for an NPU or a VPU.
            hint: as for :func:`rsedge.runtimes.opening.open_session`.

        Raises:
            MissingCapability: the runtime, the device or (TensorRT) the engine is not on this machine.
            IntegrityError: the bytes are not what the manifest says, or what was built here was altered.
            RequestError: the model ended the process in which it ran first (:meth:`rehearse`); or it is of several parts, which
                :func:`rsedge.runtimes.bundle.whole.open_whole` opens.
        """
        if self.manifest.parts is not None:
            names = ", ".join(self.manifest.parts.files)
            raise RequestError(
                f"{self.path}: is of several parts ({names}), no one network; use `rsedge infer` and `rsedge verify`, or "
                "rsedge.runtimes.bundle.whole.open_whole"
            )
        if not self.vouched_for and self.built(device) is None:  # what was built here was rehearsed then
            self.rehearse(threads, device, hint)
        return self._opened(threads, device, hint)

    @property
    def vouched_for(self) -> bool:
        """Whether somebody whom this machine trusts has signed it."""
        return self.signature.trust == "trusted"

    def rehearse(self, threads: int | None = None, device: str | None = None, hint: Hint = "latency") -> None:
        """Opens the model and runs a golden tile in a process of its own, where nobody whom this machine trusts has signed it: a
        model can be made, or damaged, to end the runtime that reads it. Once per process for the same bundle.

        Raises:
            RequestError: it ended that process, or came to no end.
        """
        backend = self.backend
        if not backend.own_process and known_elsewhere(backend.name):
            self.rehearse_by(f"{__name__}:first_run", threads=threads, device=device, hint=hint)

    def rehearse_by(self, entry: str, **options: Any) -> None:
        """As :meth:`rehearse`, by the function ``entry`` (``module:function``),
        which is given what :func:`rehearsed_bundle` takes and
        ``options`` (JSON) beside.
        """
        if self.vouched_for:
            return
        question = {"path": str(self.path), "folder": str(self.folder), "manifest": self.manifest.to_bytes().decode()}
        rehearse(self.path, entry, {**question, **options}, seconds=RUN_S + self.size_bytes // _BYTES_PER_S)

    def _opened(self, threads: int | None, device: str | None, hint: Hint) -> Session:
        return self.backend.open_bundle(self, threads, device, hint)

    def built(self, device: str | None = None) -> Built | None:
        """What ``rsedge build`` made of the bundle on this device, where it runs without too; None where it did not, or where a
        device is named.

        Raises:
            IntegrityError: it was altered.
        """
        return self.backend.built(self, device)

    def golden(self) -> Arrays:
        """The stored arrays ``dn`` [N, C, T, T], ``logits`` [N, K, T, T], ``valid`` [N, T, T]."""
        name = self.manifest.golden.file
        place, content = self.folder / name, self.read(name)
        try:
            arrays = read_arrays(place, (INPUT, LOGITS, VALID), content)
        except RequestError as error:
            raise IntegrityError(f"{place}: not a golden vector with dn, logits and valid ({error})") from error
        if len({len(a) for a in arrays.values()}) != 1 or not len(arrays[INPUT]):
            raise IntegrityError(f"{place}: dn, logits and valid differ in their number of tiles")
        return arrays

    def verify(self, threads: int | None = None, device: str | None = None) -> GoldenResult:
        """Runs the golden vector on the actual executable of this machine; ``device`` as for :meth:`session`."""
        stored = self.golden()
        with contextlib.closing(self.session(threads, device)) as session:
            parts = [session({INPUT: stored[INPUT][i : i + 1]}) for i in range(len(stored[INPUT]))]
        logits = np.concatenate([p[LOGITS] for p in parts])
        valid = np.concatenate([p[VALID] for p in parts])
        return compare(self.manifest, self.path, stored, logits, valid)

    def close(self) -> None:
        """Removes the temporary folder of a zip bundle."""
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_BYTES_PER_S = 1 << 20
"""Of a bundle, that a slow device reads, compiles and runs at least."""


def rehearsed_bundle(question: dict[str, Any]) -> Bundle:
    """The bundle that a child is to rehearse, in the child."""
    path = Path(question["path"])
    manifest = Manifest.from_bytes(question["manifest"].encode(), path / MANIFEST)
    return Bundle(path, Path(question["folder"]), manifest, Signature("UNSIGNED"))


def first_run(question: dict[str, Any], contents: Contents) -> None:
    """The child's side of :meth:`Bundle.rehearse`.

    Raises:
        RequestError, MissingCapability: as :meth:`Bundle.session`. IntegrityError: outputs have other shapes than the golden ones.
    """
    bundle = rehearsed_bundle(question)
    with contextlib.closing(bundle._opened(question["threads"], question["device"], question["hint"])) as session:
        tile = {name: array[:1] for name, array in bundle.golden().items()}
        found = session({INPUT: tile[INPUT]})
        compare(bundle.manifest, bundle.path, tile, found[LOGITS], found[VALID])


def _check_files(path: Path, folder: Path, manifest: Manifest) -> None:
    if extra := folder_files(path, folder) - UNLISTED - set(manifest.files):
        raise unlisted(path, extra)
    for name, entry in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise IntegrityError(f"{path}: '{name}' is missing; copy the bundle again")
        if file.stat().st_size != entry.bytes:
            raise IntegrityError(
                f"{path}: '{name}' has {file.stat().st_size} bytes, {MANIFEST} says {entry.bytes}; "
                "it is truncated or altered, copy the bundle again"
            )
        if sha256_file(file) != entry.sha256:
            raise IntegrityError(f"{path}: '{name}' is not what {MANIFEST} says (SHA-256 differs); copy it again")
