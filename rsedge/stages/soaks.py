"""What ``rsedge soak`` left in a run folder, for the report of the very bundle it was measured on."""

from __future__ import annotations

from rsedge.cache.run_folder import RunFolder
from rsedge.data.files import read_json, sha256_file
from rsedge.data.record import validated
from rsedge.devices.measure.soak import Soak
from rsedge.runtimes.bundle.manifest import MANIFEST


def soak_of(run: RunFolder, target: str) -> Soak | None:
    """The record of a target's bundle as it is now; None where there is none, or it is of another bundle.

    Raises:
        RequestError: the file is no such record.
    """
    place, manifest = run.soak / f"{target}.json", run.bundles / target / MANIFEST
    if not (place.is_file() and manifest.is_file()):
        return None
    found = validated(Soak, read_json(place), place)
    return found if found.bundle_sha256 == sha256_file(manifest) else None
