"""One scene as one call, for whoever spreads calls over machines: Dask, Spark, Ray, a queue of one's own."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from rsedge.archive.claims import claimed
from rsedge.flight import Bundle, load


def map_scene(
    bundle: str, scene: str, folder: str, *, name: str | None = None, threads: int = 1, **options: Any
) -> dict[str, Any]:
    """Maps a scene into a folder, unless that is done; called again it does nothing twice. The model is loaded once a process.

    Args:
        bundle, scene, folder: paths, as texts, which travel.
        name: of the outputs, without a suffix; the scene's when not given.
        options: as :meth:`rsedge.flight.Bundle.predict_into` takes them.

    Returns:
        Its record: ``status`` is ``done``, ``skipped``, or ``busy`` where another process has the scene.

    Raises:
        RequestError, IntegrityError, MissingCapability: as :meth:`rsedge.flight.Bundle.predict_into`.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    name = name or Path(scene).stem
    with claimed(place, name) as mine:
        if not mine:
            return {"status": "busy", "scene": scene}
        return _opened(bundle, threads).predict_into(scene, folder, name=name, warn=lambda text: None, **options)


@functools.lru_cache(maxsize=1)
def _opened(bundle: str, threads: int) -> Bundle:
    return load(bundle, threads=threads)
