"""What the data stage found; apart from :mod:`rsedge.results.records`, so that its key knows nothing of training."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rsedge.cache.stage import StagePart, StageValue
from rsedge.data.band_values import BandValues


class Split(StagePart):
    """What one role has; ``note`` says where that is too little to choose or to judge by."""

    scenes: list[str]
    pixels: int | None
    tiles: int
    labelled: bool
    note: str | None


class SceneEntry(StagePart):
    """A scene as it was read: pixels, metres, hashes of its content and of its split."""

    height: int
    width: int
    gsd_m: float | None
    bands: list[str]
    sha256: str
    split_sha256: str


class SceneOrigin(StagePart):
    """Where (west, south, east, north in degrees) and when a scene was taken; no part of the manifest."""

    bounds: tuple[float, float, float, float] | None
    taken: str | None


class Block(StagePart):
    """A rectangle of a scene (pixels) that belongs to one role."""

    scene: str
    split: str
    row: int
    col: int
    height: int
    width: int


class SampleSet(StagePart):
    """Samples as they were read; ``equal`` hold what others before them hold, ``near`` more are near copies of such."""

    name: str
    sha256: str
    count: int
    groups: int
    folds: int
    equal: int = 0
    near: int = 0


class Data(StageValue):
    """The data manifest with its hash.

    Attributes:
        block: side of a block of scenes, pixels.
        splits: by role.
        scenes, origins, blocks: of recipes over scenes.
        samples: of recipes over samples. objects: by role, where they are boxes.
        selection_sha256, test_sha256: hashes of what is held out.
        bands: what values each band of the scenes has.
        warnings: what is odd in the data, in words for the report.
    """

    stage: ClassVar[str] = "data"

    manifest_sha256: str
    seed: int
    block: int | None = None
    splits: dict[str, Split]
    scenes: dict[str, SceneEntry]
    origins: dict[str, SceneOrigin] = Field(default_factory=dict)
    blocks: list[Block]
    samples: SampleSet | None = None
    objects: dict[str, int] | None = None
    bands: list[BandValues] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    selection_sha256: str
    test_sha256: str

    @property
    def remarks(self) -> list[str]:
        """What a reader of the results must know of the data, in words."""
        return [*self.warnings, *(split.note for split in self.splits.values() if split.note)]
