"""The table of teachers: what can be loaded, from where, under which licence. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TeacherRow:
    """One row of ``rsedge teachers``; ``params`` counts every parameter of the network that is exported."""

    name: str
    family: str
    task: str
    params: int
    input: str
    licence: str
    source: str
    status: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _ukis(bands: int, level: str, params: int) -> TeacherRow:
    names = ["blue", "green", "red", "nir", "swir16", "swir22"][:bands]
    where = "top-of-atmosphere" if level == "l1c" else "bottom-of-atmosphere"
    return TeacherRow(
        f"ukis-csmask-{bands}b-{level}", "U-Net EfficientNet-B4", "segmentation: clear, cloud, shadow", params,
        f"{', '.join(names)}; {where} reflectance, 256x256", "Apache-2.0", "PyPI wheel ukis-csmask",
        "real weights, run by the tests",
    )  # fmt: skip


def zoo() -> list[TeacherRow]:
    """All rows; the parameter counts are checked against the built networks by the tests."""
    return [_ukis(b, level, 19_420_875 if b == 6 else 19_420_011) for b in (6, 4) for level in ("l1c", "l2a")]
