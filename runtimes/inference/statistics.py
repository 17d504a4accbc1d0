"""Statistics of bands, counted as they are written, in the tags by which GDAL and QGIS know them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rsedge.runtimes.bundle.manifest import NODATA_CLASS
from rsedge.runtimes.session import Array

Doubles = npt.NDArray[np.float64]


class Statistics:
    """Number, least, largest, sum and sum of squares of each band's values; NaN, and 255 of bytes, do not count."""

    def __init__(self, bands: int) -> None:
        self._seen = np.zeros(bands)
        self._all = 0
        self._least, self._most = np.full(bands, np.inf), np.full(bands, -np.inf)
        self._sum, self._squares = np.zeros(bands), np.zeros(bands)

    def add(self, rows: Array) -> None:
        """Counts rows [B, h, w]."""
        self._all += rows.shape[1] * rows.shape[2]
        for band, values in enumerate(rows):
            kept = values[values != NODATA_CLASS] if values.dtype == np.uint8 else values[~np.isnan(values)]
            if not kept.size:
                continue
            self._seen[band] += kept.size
            self._least[band] = min(self._least[band], kept.min())
            self._most[band] = max(self._most[band], kept.max())
            self._sum[band] += kept.sum(dtype=np.float64)
            self._squares[band] += np.square(kept, dtype=np.float64).sum()

    def tags(self, band: int) -> dict[str, str]:
        """GDAL's ``STATISTICS_`` tags of a band; none where no value counts."""
        n = self._seen[band]
        if not n:
            return {}
        mean = self._sum[band] / n
        variance = max(self._squares[band] / n - mean**2, 0.0)
        found = {
            "MINIMUM": self._least[band], "MAXIMUM": self._most[band], "MEAN": mean, "STDDEV": variance**0.5,
            "VALID_PERCENT": 100 * n / max(self._all, 1),
        }  # fmt: skip
        return {f"STATISTICS_{name}": f"{value:.10g}" for name, value in found.items()}


def of_counts(counts: npt.NDArray[np.int64]) -> Statistics:
    """Statistics of a class map with so many pixels of each number (256)."""
    found = Statistics(1)
    classes = np.flatnonzero(counts[:NODATA_CLASS])
    if len(classes):
        n = counts[classes].astype(np.float64)
        found._seen[0], found._least[0], found._most[0] = n.sum(), classes[0], classes[-1]
        found._sum[0], found._squares[0] = (n * classes).sum(), (n * classes**2).sum()
    found._all = int(counts.sum())
    return found
