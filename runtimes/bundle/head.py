"""Heads: small files that turn what an encoder's bundle gives into answers, so that one encoder, run once, serves many tasks.

Of an encoder that gives one vector an input a head makes one answer, of one that gives a map of features an answer at every pixel.
A head is linear (``models/probe.py`` fits it), belongs to the one bundle on whose own outputs it was fitted, and is signed as
bundles are. It can be sent up alone: a few kilobytes beside an encoder that is there.

The file is JSON of three texts: ``head`` (the record, as the text that is signed), ``signature`` (Ed25519 over its bytes, base64)
and ``key`` (the public key, PEM, for convenience; trust comes from the key given by the user, or those of ``rsedge trust``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.files import require_file
from rsedge.data.json_text import parse_json, read_object
from rsedge.data.moments import MaybeDateTime
from rsedge.data.printable import commanding, printable
from rsedge.data.record import Record, validated
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.bundle.signature import Envelope, Signature, check_signature

SUFFIX = ".head"
MOST_BYTES = 64 << 20
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
ENCODERS = ("embedding", "features")
"""Tasks of bundles that heads go on."""
NO_ENCODER = "a head goes on what an encoder gives (task embedding, or features)"
Vectors = npt.NDArray[np.float32]


class _File(Record):
    head: str
    signature: str | None = None
    key: str | None = None


class HeadRecord(Record):
    """What a head is; weights are little-endian float32, row by row, in base64.

    ``encoder_sha256`` is the hash of the manifest of the bundle on whose outputs it was fitted, ``figures`` what it reaches on
    groups of samples that it had not seen, each with ``value`` and ``interval``. ``stride`` is that of a map of features, None
    where the encoder gives one vector an input.
    """

    schema_version: Literal[1] = 1
    name: str = Field(pattern=NAME)
    task: Literal["classification", "regression"]
    classes: tuple[str, ...] = Field(min_length=1, description="names of the outputs, in order")
    encoder: str
    encoder_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    features: int = Field(ge=1)
    stride: int | None = Field(None, ge=1, description="pixels that one place of a map of features is wide")
    weight: str = Field(description="(classes, features)")
    bias: str = Field(description="(classes,)")
    samples: str = Field(description="what it was fitted on")
    samples_sha256: str
    count: int = Field(ge=1, description="labelled samples")
    figures: dict[str, Any] = Field(default_factory=dict)
    created: MaybeDateTime = ""

    @field_validator("classes")
    @classmethod
    def _names_once(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) != len(classes):
            raise ValueError("a name occurs twice")
        return classes

    @model_validator(mode="after")
    def _weights_fit(self) -> HeadRecord:
        for what, size in (("weight", len(self.classes) * self.features), ("bias", len(self.classes))):
            values = _floats(getattr(self, what), what)
            if len(values) != size or not np.isfinite(values).all():
                raise ValueError(f"{what}: {size} finite numbers are needed")
        return self


def encoded(values: Vectors) -> str:
    """Numbers as a record holds them."""
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def _floats(text: str, what: str) -> Vectors:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{what}: no base64 of float32 numbers") from error


@dataclass(frozen=True)
class Head:
    """A head that may be used with one bundle: vectors (N, D) -> outputs (N, K)."""

    path: Path
    record: HeadRecord
    signature: Signature
    sha256: str
    weight: Vectors
    bias: Vectors

    def __call__(self, vectors: Vectors) -> Vectors:
        """
        Raises:
            IntegrityError: numbers too large for float32 come of vectors that are numbers.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            found = np.asarray(vectors @ self.weight.T + self.bias, np.float32)
        if not np.isfinite(found[np.isfinite(vectors).all(1)]).all():
            raise IntegrityError(f"{self.path}: gives infinity or NaN; its weights are damaged or not of this encoder")
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Of what it tells apart: one class alone is told from what is not it."""
        classes = self.record.classes
        return (f"no {classes[0]}", *classes) if self.tells_classes and len(classes) == 1 else classes

    @property
    def tells_classes(self) -> bool:
        """Whether its outputs are scores of classes, not values."""
        return self.record.task == "classification"

    def about(self) -> dict[str, Any]:
        """What a record of inference says of it."""
        return {"head": str(self.path), "head_sha256": self.sha256, **self.signature.record()}


def open_head(path: str | Path, bundle: Bundle, key: Path | None = None) -> Head:
    """Reads a head for a bundle; its signature is checked before anything in it is believed.

    Args:
        key: the public key (PEM) that must have signed it; else one of those that this machine trusts.

    Raises:
        RequestError: no such file, no head, or a head of another bundle, or the bundle is no encoder.
        IntegrityError: it was altered, or is not signed by whom it must be.
    """
    path = Path(path)
    if bundle.manifest.task not in ENCODERS:
        raise RequestError(f"{bundle.path}: {NO_ENCODER}; this bundle is for {bundle.manifest.task}")
    file = validated(_File, read_object(require_file(path), MOST_BYTES), path)
    signed = file.head.encode()
    signature_bytes, key_bytes = (None if text is None else text.encode() for text in (file.signature, file.key))
    envelope = Envelope(signed, signature_bytes, key_bytes, what="head")
    signature = check_signature(path, envelope, key)
    record = _record(signed, path)
    if record.encoder_sha256 != bundle.manifest_sha256:
        raise RequestError(
            f"{path}: was fitted on the vectors of '{record.encoder}' (manifest {record.encoder_sha256[:16]}...), and "
            f"{bundle.path} is another bundle ({bundle.manifest_sha256[:16]}...), whose numbers mean other things; fit it on this "
            "one: rsedge head"
        )
    _check_fits(record, bundle, path)
    shape = (len(record.classes), record.features)
    return Head(
        path, record, signature, hashlib.sha256(signed).hexdigest(), _floats(record.weight, "weight").reshape(shape),
        _floats(record.bias, "bias"),
    )  # fmt: skip


def _check_fits(record: HeadRecord, bundle: Bundle, path: Path) -> None:
    """
    Raises:
        RequestError: it says of itself that it goes on other features than the bundle gives.
    """
    manifest = bundle.manifest
    mine, its = ((what, _stride_words(stride)) for what, stride in (
        (record.features, record.stride), (len(manifest.classes), manifest.stride)
    ))  # fmt: skip
    if mine != its:
        raise RequestError(
            f"{path}: takes {mine[0]} features {mine[1]}, and {bundle.path} gives {its[0]} {its[1]}; fit it on this one: "
            "rsedge head"
        )


def _stride_words(stride: int | None) -> str:
    return "an input" if stride is None else f"at every {stride}x{stride} pixels"


def _record(content: bytes, path: Path) -> HeadRecord:
    value = parse_json(content, path, MOST_BYTES)
    if isinstance(value, Mapping) and (place := next(commanding(value), None)):
        raise RequestError(
            f"{path}: {printable(place)} holds control characters, by which it could pass for what we say"
        )
    return validated(HeadRecord, value, path)


def file_text(record: HeadRecord, signature: str | None, key: str | None) -> str:
    """The content of a head's file; ``signature`` is over the bytes of :func:`signed_text`."""
    return _File(head=signed_text(record), signature=signature, key=key).model_dump_json(indent=1) + "\n"


def signed_text(record: HeadRecord) -> str:
    """The text that is signed."""
    return record.model_dump_json()


def check_vectors(head: Head, vectors: Vectors) -> None:
    """Raises:
    IntegrityError: vectors of another length than the head was fitted on.
    """
    if vectors.shape[1] != head.record.features:
        raise IntegrityError(
            f"{head.path}: takes vectors of {head.record.features} numbers, the encoder gives {vectors.shape[1]}"
        )


def beside(output: Path, head: Head) -> Path:
    """Where what a head gives is written: beside the vectors, with its name in the middle."""
    return output.with_name(f"{output.stem}.{head.record.name}{output.suffix}")
