"""A band contract in lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsedge.data.bands import InputSpec


def bands(spec: InputSpec) -> list[str]:
    """The band contract as lines of text."""
    gsd = f", GSD {spec.gsd_range_m[0]:g} to {spec.gsd_range_m[1]:g} m" if spec.gsd_range_m else ""
    frames = f", {spec.frames} frames" if "T" in spec.layout else ""
    size = f", {spec.tile}x{spec.tile} pixels" if spec.is_image else ""
    levels = f" in {spec.levels} levels" if spec.levels else ""
    lines = [f"input: {spec.layout}{frames}{size}, {spec.dtype}, {spec.quantity}{gsd}; {spec.normalisation}{levels}"]
    for band in spec.bands:
        parts = [f"DN * {band.scale:g} + {band.offset:g}"]
        if band.stretch:
            parts.append(f"stretch {band.stretch[0]:g} to {band.stretch[1]:g}")
        parts.append(f"mean {band.mean:.6g}, std {band.std:.6g}")
        if band.nodata is not None:
            parts.append(f"nodata {band.nodata:g}")
        where = f" ({band.wavelength_nm:g} nm)" if band.wavelength_nm else ""
        lines.append(f"  {band.name}{where}: {'; '.join(parts)}")
    return lines
