"""Pictures of 8 bits, as image-text sets have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError


def read_rgb(image: Path | bytes, edge: int | None = None) -> npt.NDArray[np.uint8]:
    """An 8-bit image file (PNG, JPEG, TIFF, WebP, BMP) as (3, H, W); one band is repeated, a fourth is left out.

    Args:
        edge: gives the largest square in the middle, resampled (cubic) to this many pixels, as vision-language models take
            images; None gives all pixels as they are.

    Raises:
        RequestError: not readable, another type than 8 bits, or two bands.
    """
    from rasterio.windows import Window

    from rsedge.data.scenes.raster import open_raster, raster_in_memory, resampled
    from rsedge.data.scenes.raster_kinds import PICTURES

    with open_raster(image, PICTURES) if isinstance(image, Path) else raster_in_memory(image, PICTURES) as file:
        if set(file.dtypes) != {"uint8"} or file.count not in (1, 3, 4):
            raise RequestError(
                f"{file.path}: an 8-bit image of 1, 3 or 4 bands is expected, not {file.count} of {file.dtypes[0]}"
            )
        side = min(file.height, file.width)
        window = Window(0, 0, file.width, file.height)
        if edge is not None:
            window = Window((file.width - side) // 2, (file.height - side) // 2, side, side)
        pixels = file.read(range(1, file.count + 1), window)
    if edge not in (None, side):
        pixels = resampled(pixels, edge)
    return np.ascontiguousarray(pixels[:3] if len(pixels) >= 3 else np.repeat(pixels, 3, axis=0))
