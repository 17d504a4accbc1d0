"""A scene as one array: its bands in physical units, which pixels are there, and labels where it has some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rsedge.data.band_values import BandValues
from rsedge.data.bands import InputSpec
from rsedge.data.paged import strips, zeros


@dataclass(frozen=True)
class Scene:
    """One scene in physical units: ``image`` (C, H, W) float32 reflectance, ``valid`` (H, W), band names, GSD (m).

    A large ``image`` lies in a file (:mod:`rsedge.data.paged`).

    ``sensor`` is whose bands they are, as :data:`rsedge.data.band_names.SENSORS` calls it, where that is known.
    ``bounds`` (west, south, east, north in degrees) and ``taken`` say where and when, where its file does.
    ``values`` says what the bands are like in a contract, ``warnings`` what its user should know; both where it was read for one.
    """

    name: str
    image: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    bands: tuple[str, ...]
    gsd_m: float
    sha256: str
    labels: npt.NDArray[np.uint8] | None = None
    values: tuple[BandValues, ...] = ()
    warnings: tuple[str, ...] = ()
    sensor: str | None = None
    bounds: tuple[float, float, float, float] | None = None
    taken: str | None = None

    def select(self, wanted: Sequence[str]) -> npt.NDArray[np.float32] | None:
        """The wanted bands in order, shape (len(wanted), H, W), to read; None when this scene lacks one of them."""
        if not set(wanted) <= set(self.bands):
            return None
        if tuple(wanted) == tuple(self.bands):
            return self.image
        out = zeros((len(wanted), *self.valid.shape), self.image.dtype)
        for number, band in enumerate(wanted):
            out[number] = self.image[self.bands.index(band)]
        return out

    def digital_numbers(self, spec: InputSpec, wanted: Sequence[str]) -> npt.NDArray[np.generic] | None:
        """The wanted bands of a contract in its digital numbers, (len(wanted), H, W); None as of :meth:`select`."""
        image = self.select(wanted)
        if image is None:
            return None
        part = spec.without([band for band in spec.band_names if band not in wanted])
        out = zeros(image.shape, spec.dtype)
        for rows in strips(image.shape[1], image[:, 0].nbytes):
            out[:, rows] = part.to_dn(image[:, rows])
        return out


@dataclass(frozen=True)
class SceneNotes:
    """What whoever uses several scenes together should know: their warnings, and the sensors they are of."""

    warnings: list[str] = field(default_factory=list)
    sensors: set[str] = field(default_factory=set)

    def add(self, scene: Scene) -> None:
        self.warnings.extend(scene.warnings)
        if scene.sensor is not None:
            self.sensors.add(scene.sensor)
