"""Models compiled by OpenVINO on this device: pinned to what made them, refused where they do not fit.

A blob fits one OpenVINO version and one device. It is kept in the device's own cache (:mod:`rsedge.runtimes.device_cache`).
"""

from __future__ import annotations

from pydantic import Field

from rsedge.data.errors import MissingCapability
from rsedge.data.record import Record, validated
from rsedge.runtimes.device_cache import Built


class BlobRecord(Record):
    """What made a blob: versions and names as OpenVINO gives them, ``built`` in UTC; ``options`` are the model's own wishes, which
    a blob has to be opened with as well."""

    openvino: str
    device: str
    device_name: str
    precision: str
    hint: str
    options: dict[str, str] = Field(default_factory=dict)
    built: str


def check_blob(built: Built, version: str, device: str, device_name: str) -> BlobRecord:
    """The record of a blob, after holding the machine against it.

    Raises:
        MissingCapability: made by another OpenVINO or for another device; names both sides.
    """
    record = validated(BlobRecord, built.about, built.path)
    here, there = (version, device, device_name), (record.openvino, record.device, record.device_name)
    if here != there:
        raise MissingCapability(
            f"{built}: was compiled by OpenVINO {there[0]} for {there[1]} ({there[2]}), this machine has {here[0]} and "
            f"{here[1]} ({here[2]}); blobs do not carry over, {built.rebuild}"
        )
    return record
