"""Works out the table of materials that training views may be laid with: `python benchmarks/views/materials.py`.

Writes data/scenes/materials.yaml. Each material has two spectra, its dark and its bright end, as surface reflectance at some
wavelengths. They are

- shares of the spectra of one kind (mean over 30 nm around each wavelength) in ``earthlib`` 1.1.0 (MIT), which holds soils of the
  ICRAF-ISRIC library, canopies simulated by PROSAIL and burnt matter measured in the field;
- snow by ``tartes`` 2.0.3 (Libois et al. 2013; ice of Picard et al. 2016), fine and clean, coarse and sooty;
- water from what water and mineral particles absorb and scatter (:func:`turbid_water`).

Both packages are read here and nowhere else: ``pip install --no-deps earthlib==1.1.0 tartes==2.0.3``.
"""

from __future__ import annotations

import csv
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tartes
import yaml

from rsedge.data.files import write_bytes

TABLE = Path(__file__).parents[2] / "data" / "scenes" / "materials.yaml"
NM = (443, 490, 560, 665, 705, 740, 783, 865, 1040, 1240, 1610, 2190)
AROUND_NM = 15
Values = npt.NDArray[np.floating]
WATER_ABSORBS = (0.0071, 0.015, 0.062, 0.43, 0.70, 2.4, 2.2, 4.6, 16.0, 110.0, 670.0, 2200.0)
"""Per metre, at NM: Pope & Fry 1997 to 705 nm, then Kou et al. 1993 (rounded: where it is large, water is black)."""
SATURATED = (0.45, 0.45, 0.45, 0.45, 0.45, 0.45, 0.42, 0.4, 0.35, 0.32, 0.25, 0.2)
"""Reflectance of a soil full of water over that of the dry one (Lobell & Asner 2002: 0.4 to 0.5, less in the water's bands)."""


def library() -> tuple[list[dict[str, str]], Values, Values]:
    """Rows, wavelengths (W,) in nm and spectra (N, W) of earthlib."""
    # Its files alone: importing it asks for pandas and spectral.
    folder = Path(str(metadata.distribution("earthlib").locate_file("earthlib/data")))
    rows = list(csv.DictReader((folder / "spectra.csv").read_text().splitlines()))
    found = re.search(r"wavelength = \{([^}]*)\}", (folder / "spectra.sli.hdr").read_text())
    assert found is not None
    nm = 1000 * np.array([float(v) for v in found[1].split(",")])
    return rows, nm, np.fromfile(folder / "spectra.sli", "<f4").reshape(len(rows), len(nm))


def share(kind: str, percent: float) -> Values:
    """What so many per cent of earthlib's spectra of a kind lie under, at each of NM."""
    rows, nm, spectra = library()
    own = spectra[[row["LEVEL_3"] == kind for row in rows]]
    return np.array([np.percentile(own[:, np.abs(nm - at) <= AROUND_NM].mean(1), percent) for at in NM])


def snow(area_m2_kg: float, density: float, soot: float) -> Values:
    """Albedo of a deep pack of grains of this specific surface area, with a share of soot."""
    return np.asarray(tartes.albedo(np.array(NM) * 1e-9, area_m2_kg, density, impurities=soot))


def turbid_water(grams_m3: float) -> Values:
    """Reflectance of water with mineral particles, without glint.

    Absorption of particles by Babin et al. 2003; back-scatter of 0.006 m2/g, so that red reflectance is that of
    Dogliotti et al. 2015 at 100 (0.12); from there by Gordon et al. 1988 and Lee et al. 2002.
    """
    nm = np.array(NM, dtype=float)
    scatter = 0.0013 * (550 / nm) ** 4.3 + 0.006 * grams_m3 * (555 / nm) ** 0.5
    absorb = np.array(WATER_ABSORBS) + 0.041 * np.exp(-0.0123 * (nm - 443)) * grams_m3
    u = scatter / (absorb + scatter)
    below = 0.0895 * u + 0.1247 * u**2
    return np.asarray(np.pi * 0.52 * below / (1 - 1.7 * below))


def materials() -> dict[str, dict[str, Any]]:
    wet = np.array(SATURATED)
    found = {
        "dark-forest": (
            "dense dark forest", 0.4 * share("canopy", 2), 0.7 * share("canopy", 50),
            "canopies simulated by PROSAIL (earthlib): 0.4 of the 2nd per cent, 0.7 of the median; crowns shade each other",
        ),
        "snow": (
            "old to fresh snow", snow(5, 400, 2e-6), snow(60, 150, 0),
            "tartes: specific surface 5 and 60 m2/kg, density 400 and 150 kg/m3, 2 and 0 millionths of soot",
        ),
        "bright-desert": (
            "bright dry soil and sand", share("soil", 75), share("soil", 98),
            "dry soils of the ICRAF-ISRIC library (earthlib): 75th and 98th per cent",
        ),
        "turbid-water": (
            "water with mineral particles", turbid_water(3), turbid_water(200),
            "3 and 200 g/m3; absorption by Pope & Fry 1997, Kou et al. 1993, Babin et al. 2003; reflectance by Lee et al. 2002",
        ),
        "burnt": (
            "burnt ground", share("char", 5), share("char", 60),
            "char, ash and charred soil measured in the field (earthlib, Joint Fire Science Program): 5th and 60th per cent",
        ),
        "wet-soil": (
            "wet soil", wet * share("soil", 10), wet * share("soil", 60),
            "dry soils (earthlib): 10th and 60th per cent, times what water leaves of it (Lobell & Asner 2002)",
        ),
    }  # fmt: skip
    return {
        name: {"what": what, "dark": _short(dark), "bright": _short(bright), "source": source}
        for name, (what, dark, bright, source) in found.items()
    }


def _short(values: Values) -> list[float]:
    return [round(float(v), 4) for v in values]


def main() -> None:
    head = "# Written by `python benchmarks/views/materials.py`; do not edit by hand. Surface reflectance at `nm`.\n"
    text = yaml.safe_dump(
        {"nm": list(NM), "materials": materials()}, sort_keys=False, default_flow_style=None, width=128
    )
    write_bytes(TABLE, (head + text).encode())


if __name__ == "__main__":
    main()
