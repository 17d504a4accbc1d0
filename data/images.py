"""Pictures of 8 bits, as image-text sets have them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError


def read_rgb(image: Path | bytes, edge: int | None = None) -> npt.NDArray[np.uint8]:
    """An 8-bit image file (PNG, JPEG, TIFF) as (3, H, W); one band is repeated, a fourth is left out.

    Args:
        edge: gives the largest square in the middle, resampled (cubic) to this many pixels, as vision-language models take
            images; None gives all pixels as they are.

    Raises:
        RequestError: not readable, another type than 8 bits, or two bands.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
    from rasterio.io import MemoryFile

    where = image if isinstance(image, Path) else "an image in the file"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            if isinstance(image, bytes):
                with MemoryFile(image) as memory, memory.open() as src:
                    pixels = _pixels(src, edge)
            else:
                with rasterio.open(image) as src:
                    pixels = _pixels(src, edge)
    except RasterioIOError as error:
        raise RequestError(f"{where}: not a readable image ({error})") from error
    if pixels.dtype != np.uint8 or len(pixels) not in (1, 3, 4):
        raise RequestError(
            f"{where}: an 8-bit image of 1, 3 or 4 bands is expected, not {len(pixels)} of {pixels.dtype}"
        )
    return np.ascontiguousarray(pixels[:3] if len(pixels) >= 3 else np.repeat(pixels, 3, axis=0))


def _pixels(src: Any, edge: int | None) -> npt.NDArray[Any]:
    if edge is None:
        return src.read()
    from rasterio.enums import Resampling
    from rasterio.windows import Window

    side = min(src.height, src.width)
    middle = Window((src.width - side) // 2, (src.height - side) // 2, side, side)
    method = Resampling.nearest if side == edge else Resampling.cubic
    return src.read(window=middle, out_shape=(src.count, edge, edge), resampling=method)
