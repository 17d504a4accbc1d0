"""Training views that stand for sensors we have never seen.

A view starts as a crop of a real scene at a random ground sampling distance. Pixels that belong to another split (or
are missing) are filled from further crops, so that no held-out pixel is ever used. Then: spectral mixing with other scenes,
a material laid over a share of them (:mod:`rsedge.data.scenes.materials`), simulated clouds with cast shadows, and the sensor
itself (band gains and offsets, blur, noise, quantisation). A share of the views has further changes, of one or several kinds of
:mod:`rsedge.data.scenes.changes`. Everything is drawn from ``(seed, index)``, so a view can be made again bit for bit, in any
order, with its changes or without. Where changes are ``steady``, views have none, and what reads them changes them
(:meth:`ViewGenerator.changed`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from rsedge.data.band_names import WAVELENGTHS_NM
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.paged import places, strips, zeros
from rsedge.data.scenes.changes import CHANGES, IN_ORDER, LIMITS, Seen, named_changes
from rsedge.data.scenes.clouds import CloudSettings, simulate_clouds
from rsedge.data.scenes.fractal import FractalBank, resize
from rsedge.data.scenes.materials import laid
from rsedge.data.scenes.scene import Scene
from rsedge.data.turns import TURNS, turned_image

Image = npt.NDArray[np.float32]
PURE = 0.99
"""Share of a pixel that one class must have for its label to hold."""
CLEAR = 0.02
"""Optical thickness, and depth of shadow, under which the ground is seen as it was labelled."""
_SPECTRA = 1 << 20
"""At most about so many spectra of a scene are kept to draw from."""
_CHANGED, _LAID = 0x5EED, 0x501D
"""Keep the draws of changes and materials apart: a view without one is the same whether others have some or not."""


@dataclass(frozen=True)
class AugmentSettings:
    """How far views may go from the scenes they are made of. Probabilities are per view.

    Views far outside what sensors deliver teach little: the teacher's answers on them are arbitrary, and a small student spends
    its capacity on them.
    """

    gsd_m: tuple[float, float] = (8.0, 60.0)
    mix: float = 0.3
    spectra: float = 0.1
    clouds: float = 0.65
    second_layer: float = 0.3
    darken: float = 0.4
    darken_to: tuple[float, float] = (0.35, 1.0)
    gain: float = 0.1
    band_gain: float = 0.05
    offset: float = 0.008
    haze: float = 0.2
    blur: float = 0.25
    noise: float = 0.2
    saturate: float = 0.05
    plain: float = 0.3
    changes: float = 0.0
    kinds: tuple[str, ...] = ()
    at_once: int = 1
    steady: bool = False
    materials: float = 0.0
    cloud: CloudSettings = field(default_factory=CloudSettings)


@dataclass(frozen=True)
class ViewScene:
    """A scene in the contract's bands with the pixels a split may use, at its own GSD.

    ``image`` (C + K, H, W) may have below its bands what share of each pixel is of each of K classes; none is where nothing is
    known.
    """

    name: str
    image: Image
    allowed: npt.NDArray[np.bool_]
    gsd_m: float
    weight: float = 1.0


def prepare_scenes(
    scenes: Sequence[Scene],
    spec: InputSpec,
    masks: Sequence[npt.NDArray[np.bool_]] | None = None,
    classes: int = 0,
) -> list[ViewScene]:
    """Brings scenes to the contract's bands by name; ``masks`` (H, W) say which pixels a split may use.

    A scene that lacks some bands is completed by a least-squares spectral regression learned on the scenes that have
    them all; it serves as ground texture only, and counts half.

    Raises:
        RequestError: no scene has all bands of the contract.
    """
    masks = [s.valid for s in scenes] if masks is None else [m & s.valid for m, s in zip(masks, scenes, strict=True)]
    whole = {i: img for i, s in enumerate(scenes) if (img := s.select(spec.band_names)) is not None}
    if not whole:
        have = "; ".join(f"{s.name}: {', '.join(s.bands)}" for s in scenes)
        raise RequestError(f"data.train: no scene has all of {', '.join(spec.band_names)} ({have})")
    out = []
    for i, (scene, mask) in enumerate(zip(scenes, masks, strict=True)):
        image, weight = whole.get(i), 1.0
        if image is None:
            image, weight = _complete(scene, spec, [(whole[j], masks[j]) for j in whole]), 0.5
        image = _with_shares(image, scene, classes) if classes else image
        out.append(ViewScene(scene.name, image, mask, scene.gsd_m, weight))
    return out


def _with_shares(image: Image, scene: Scene, classes: int) -> Image:
    """(C + K, H, W): below the bands 1 where a label is of the class."""
    out = zeros((len(image) + classes, *image.shape[1:]), np.float32)
    for band, values in zip(out, image, strict=False):
        band[:] = values
    for number in range(classes if scene.labels is not None else 0):
        out[len(image) + number] = scene.labels == number
    return out


def _complete(scene: Scene, spec: InputSpec, full: Sequence[tuple[Image, npt.NDArray[np.bool_]]]) -> Image:
    """Missing bands by ridge regression on the shared ones (log reflectance, with squares)."""
    shared = [b for b in spec.band_names if b in scene.bands]
    columns = [spec.band_names.index(b) for b in shared]
    pixels = np.concatenate([_every(img, m, max(1, int(m.sum()) // 4000)) for img, m in full], axis=1)
    design, target = _features(pixels[columns]), np.log(np.maximum(pixels, 1e-3))
    weights = np.linalg.solve(design @ design.T + 1e-2 * np.eye(len(design)), design @ target.T)
    known = scene.select(shared)
    assert known is not None
    out = zeros((spec.channels, *scene.valid.shape), np.float32)
    for rows in strips(len(scene.valid), known[:, 0].nbytes):
        here = known[:, rows]
        filled = np.exp(weights.T @ _features(here.reshape(len(shared), -1))).reshape(-1, *here.shape[1:])
        filled[columns] = here
        out[:, rows] = np.clip(filled, 0, 1.2)
    return out


def _every(image: Image, mask: npt.NDArray[np.bool_], step: int) -> Image:
    """Every ``step``-th of the pixels that are set in a mask, (C, n)."""
    rows, cols = places(mask, np.arange(0, int(np.count_nonzero(mask)), step))
    return image[:, rows, cols]


def _features(values: Image) -> npt.NDArray[np.float64]:
    logs = np.log(np.maximum(values, 1e-3)).astype(np.float64)
    return np.concatenate([np.ones((1, logs.shape[1])), logs, logs**2])


class ViewGenerator:
    """Deterministic views: ``generator(index)`` gives DN of shape (C, tile, tile) in the contract's dtype,
    ``generator.labels(index)`` the classes of its pixels where the scenes have labels below their bands.

    Raises:
        RequestError: no pixel is left for the split, a kind of change is none, or as :func:`check_light`.
    """

    def __init__(self, scenes: Sequence[ViewScene], spec: InputSpec, settings: AugmentSettings, seed: int) -> None:
        if not any(s.allowed.any() for s in scenes):
            raise RequestError("data: no pixel is left for this split; make data.block smaller or the fractions other")
        self.spec, self.settings, self.seed = spec, settings, seed
        self._scenes = [s for s in scenes if s.allowed.any()]
        weights = np.array([s.weight * np.sqrt(s.allowed.sum()) for s in self._scenes])
        self._weights = weights / weights.sum()
        self._pyramids = [_pyramid(s) for s in self._scenes]
        self._bank = _bank(seed)
        self._optical = (np.arange(len(self._scenes[0].image)) < spec.channels)[:, None, None]
        check_light(spec, settings)
        self._wavelengths = np.array([_wavelength(b) or np.nan for b in spec.bands])
        self._library = np.concatenate([_every(s.image, s.allowed, _library_step(s)) for s in self._scenes], axis=1)
        self._kinds = named_changes(settings.kinds, "data.augment.kinds")

    def __call__(self, index: int) -> npt.NDArray[np.generic]:
        return self._view(index, self.changes(index))

    def changes(self, index: int) -> tuple[str, ...]:
        """The kinds of change of a view, in the order in which they happen; none where it has none."""
        rng = np.random.default_rng([self.seed, index, _CHANGED])
        return () if self.settings.steady else self._drawn(rng)

    def _drawn(self, rng: np.random.Generator) -> tuple[str, ...]:
        if rng.random() >= self.settings.changes:
            return ()
        count = int(rng.integers(1, min(self.settings.at_once, len(self._kinds)) + 1))
        drawn = set(rng.choice(self._kinds, size=count, replace=False).tolist())
        return tuple(kind for kind in IN_ORDER if kind in drawn)

    def changed(self, dn: npt.NDArray[np.generic], rng: np.random.Generator) -> npt.NDArray[np.generic]:
        """A view (C, tile, tile) as it may come to look: some have no change, the others those drawn by ``rng``."""
        kinds = self._drawn(rng)
        if not kinds:
            return dn
        image, seen = self.spec.to_physical(dn), self._seen(self.settings.gsd_m[0])
        for kind in kinds:
            image = CHANGES[kind](image, rng.random(), seen, rng)
        return self.spec.to_dn(image)

    def _view(self, index: int, kinds: Sequence[str]) -> npt.NDArray[np.generic]:
        image, _shares, turn = self._made(index, kinds)
        return self.spec.to_dn(turned_image(image, turn))

    def unchanged(self, index: int) -> npt.NDArray[np.generic] | None:
        """A view without its changes; None where it has none."""
        return self._view(index, ()) if self.changes(index) else None

    def labels(self, index: int) -> Image:
        """Class of each pixel of a view (tile, tile), -1 where it is not one class alone: unlabelled, blended, under cloud or
        shadow."""
        _image, shares, turn = self._made(index, self.changes(index))
        found = np.where(shares.max(0) > PURE, shares.argmax(0), -1).astype(np.float32)
        return turned_image(found, turn)

    def _made(self, index: int, kinds: Sequence[str]) -> tuple[Image, Image, int]:
        """Bands (C, tile, tile), shares of classes (K, tile, tile), and how both are to be turned."""
        rng = np.random.default_rng([self.seed, index])
        s, count = self.settings, self.spec.channels
        gsd = float(np.exp(rng.uniform(*np.log(s.gsd_m))))
        ground = self._ground(rng, gsd)
        image, shares = ground[:count], ground[count:]
        plain = rng.random() < s.plain
        if not plain:
            ground = self._laid(self._mixed(ground, rng, gsd), index, gsd)
            image, shares = self._toned(ground[:count], rng), ground[count:]
        image = self._changed(image, index, [kind for kind in kinds if CHANGES[kind].when == "ground"], gsd)
        if not plain:
            if rng.random() < s.clouds:
                for _ in range(1 + int(rng.random() < s.second_layer)):
                    image, layer = simulate_clouds(image, self._wavelengths, gsd, rng, self._bank, s.cloud)
                    shares = shares * ((layer.optical_thickness < CLEAR) & (layer.shadow < CLEAR))
            image = self._sensed(image, rng)
        image = self._changed(image, index, [kind for kind in kinds if CHANGES[kind].when != "ground"], gsd)
        return image, shares, int(rng.integers(TURNS))

    def _laid(self, ground: Image, index: int, gsd: float) -> Image:
        """Bands and shares of classes, with a material over some of the views; it is of no class."""
        rng = np.random.default_rng([self.seed, index, _LAID])
        if rng.random() >= self.settings.materials:
            return ground
        count = self.spec.channels
        image, cover = laid(ground[:count], self._seen(gsd), rng, toa=self.spec.quantity == "toa_reflectance")
        return np.concatenate([image, ground[count:] * (1 - cover)])

    def _seen(self, gsd: float) -> Seen:
        return Seen(self._wavelengths, gsd, self._bank)

    def _changed(self, image: Image, index: int, kinds: Sequence[str], gsd: float) -> Image:
        """The image after these changes, each by draws of its own."""
        for kind in kinds:
            rng = np.random.default_rng([self.seed, index, _CHANGED, 1 + IN_ORDER.index(kind)])
            image = CHANGES[kind](image, rng.random(), self._seen(gsd), rng)
        return image

    def _ground(self, rng: np.random.Generator, gsd: float) -> Image:
        """Crops of real scenes, laid over each other until every pixel is one that the split may use."""
        tile = self.spec.tile
        out, have = self._crop(rng, gsd)
        for _ in range(8):
            if have.all():
                return out
            more, allowed = self._crop(rng, gsd)
            take = allowed & ~have
            # Feathered into the part that is allowed on both sides, so that seams are no cue.
            soft = (
                ndimage.uniform_filter(take.astype(np.float32), 9) if take.any() else np.zeros((tile, tile), np.float32)
            )
            alpha = np.where(have & allowed, np.where(soft > 0, soft, 0), take.astype(np.float32))
            out = out * (1 - alpha) + more * alpha
            have = have | allowed
        spectrum = self._library[:, rng.integers(self._library.shape[1])][:, None, None]
        return np.where(have, out, spectrum).astype(np.float32)

    def _crop(self, rng: np.random.Generator, gsd: float) -> tuple[Image, npt.NDArray[np.bool_]]:
        """A tile of one scene at ``gsd``, and which of its pixels hold nothing but allowed ones."""
        pick = rng.choice(len(self._scenes), p=self._weights)
        # Finer than the scene is an enlargement: at most 2x, since it makes blurred, not detailed, ground.
        ratio = max(gsd / self._scenes[pick].gsd_m, 0.5)
        level = int(np.clip(np.floor(np.log2(ratio)), 0, len(self._pyramids[pick]) - 1))
        image, share, weighted = self._pyramids[pick][level]
        tile = self.spec.tile
        span = max(round(tile * ratio / 2**level), 16)
        rows, cols = (
            _mirror(int(rng.integers(min(0, n - span), max(1, n - span + 1))) + np.arange(span), n) for n in share.shape
        )
        window, inside = _taken(image, rows, cols), _taken(share, rows, cols).astype(np.float32)
        weight = resize(inside, (tile, tile))
        out = resize(window if weighted else window * inside, (tile, tile)) / np.maximum(weight, 1e-3)
        k = int(rng.integers(TURNS))
        return turned_image(out, k), turned_image(weight, k) > 0.999

    def _mixed(self, image: Image, rng: np.random.Generator, gsd: float) -> Image:
        """Another scene, or a ground of few materials, through a fractal mask."""
        s = self.settings
        tile = self.spec.tile
        if rng.random() < s.mix:
            mask = _soft_step(self._bank.draw(rng, tile), rng)
            image = image * (1 - mask) + self._ground(rng, gsd * float(rng.uniform(0.6, 1.6))) * mask
        if rng.random() < s.spectra:
            material = self._library[:, rng.integers(self._library.shape[1])][:, None, None]
            relief = np.where(self._optical, 0.7 + 0.6 * self._bank.draw(rng, tile), 1).astype(np.float32)
            mask = _soft_step(self._bank.draw(rng, tile), rng) * rng.uniform(0.3, 1.0)
            image = image * (1 - mask) + material * relief * mask
        return image.astype(np.float32)

    def _toned(self, image: Image, rng: np.random.Generator) -> Image:
        """Ground brightness and haze: darker soils and forests, low sun, path radiance."""
        s = self.settings
        out: npt.NDArray[np.floating] = image
        if rng.random() < s.darken:
            out = out * rng.uniform(*s.darken_to)
        if rng.random() < 0.2:
            out = np.maximum(out, 1e-4) ** rng.uniform(0.8, 1.35)
        if rng.random() < s.haze:
            rayleigh = (550.0 / self._wavelengths) ** rng.uniform(1.0, 4.0)
            out = out + (rng.uniform(0, 0.08) * rayleigh)[:, None, None]
        return out.astype(np.float32)

    def _sensed(self, image: Image, rng: np.random.Generator) -> Image:
        """The instrument: band gains and offsets, blur, noise, saturation."""
        s = self.settings
        count = self.spec.channels
        gain = np.exp(rng.normal(0, s.gain) + rng.normal(0, s.band_gain, size=count))
        shift = rng.normal(0, s.offset) * rng.uniform(0, 1) + rng.normal(0, s.offset / 2, size=count)
        image = (image * gain[:, None, None] + shift[:, None, None]).astype(np.float32)
        if rng.random() < s.blur:
            width = rng.uniform(0.3, 1.6)
            image = ndimage.gaussian_filter1d(
                ndimage.gaussian_filter1d(image, width, axis=1, truncate=2.5), width, axis=2, truncate=2.5
            )
        if rng.random() < s.noise:
            sigma = float(np.exp(rng.uniform(np.log(5e-4), np.log(8e-3))))
            image = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
        if rng.random() < s.saturate:
            image = np.minimum(image, rng.uniform(0.35, 1.0))
        return np.clip(image, *LIMITS).astype(np.float32)


@functools.lru_cache(maxsize=2)
def _bank(seed: int) -> FractalBank:
    """The fields of a seed: views and their labels are drawn by two generators of the same ones."""
    return FractalBank(seed)


def check_light(spec: InputSpec, settings: AugmentSettings) -> None:
    """Holds that light is simulated for bands of light alone: not for radar, elevation or components of a cube.

    Raises:
        RequestError: a band has no wavelength, and views are more than crops of scenes.
    """
    unknown = [b.name for b in spec.bands if _wavelength(b) is None]
    if unknown and (settings.plain < 1 or settings.changes or settings.materials):
        raise RequestError(
            f"data.augment: band '{unknown[0]}' has no wavelength, by which clouds, light and instruments are simulated. Give it "
            "wavelength_nm where the bands are the recipe's own; else set data.augment to {plain: 1}: views are then crops as "
            "they are"
        )


def _wavelength(band: BandSpec) -> float | None:
    """Of its centre, in nm, as declared or by the band's name; None where neither says it."""
    return WAVELENGTHS_NM.get(band.name) if band.wavelength_nm is None else band.wavelength_nm


def _library_step(scene: ViewScene) -> int:
    """Of how many pixels one is kept as a spectrum to draw from."""
    return max(37, int(np.count_nonzero(scene.allowed)) // _SPECTRA)


class _Level(NamedTuple):
    """One resolution of a scene: reflectance (C, h, w), the share of allowed pixels (h, w), and whether it is weighted by that."""

    image: Image
    share: npt.NDArray[Any]
    weighted: bool


def _pyramid(scene: ViewScene) -> list[_Level]:
    """Whole, half, quarter ... resolution of a scene."""
    levels = [_Level(scene.image, scene.allowed, weighted=False)]
    while min(levels[-1].share.shape) >= 64:
        levels.append(_halved(levels[-1]))
    return levels


def _halved(level: _Level) -> _Level:
    height, width = (n // 2 for n in level.share.shape)
    image, share = zeros((len(level.image), height, width), np.float32), zeros((height, width), np.float32)
    for rows in strips(height, 2 * level.image[:, 0].nbytes):
        from_rows = np.s_[2 * rows.start : 2 * rows.stop, : 2 * width]
        inside = level.share[from_rows].astype(np.float32)
        values = level.image[:, from_rows[0], from_rows[1]]
        size = inside.shape[0] // 2, width
        image[:, rows] = resize(values if level.weighted else values * inside, size)
        share[rows] = resize(inside, size)
    return _Level(image, share, weighted=True)


def _taken(image: npt.NDArray[Any], rows: npt.NDArray[np.integer], cols: npt.NDArray[np.integer]) -> npt.NDArray[Any]:
    """Rows and columns of (..., H, W) in any order; of a large image no more is read than lies between them."""
    top, left = int(rows.min()), int(cols.min())
    part = image[..., top : int(rows.max()) + 1, left : int(cols.max()) + 1]
    return np.take(np.take(part, rows - top, axis=-2), cols - left, axis=-1)


def _mirror(index: npt.NDArray[np.integer], size: int) -> npt.NDArray[np.integer]:
    period = 2 * size
    folded = np.mod(index, period)
    return np.where(folded < size, folded, period - 1 - folded)


def _soft_step(field: Image, rng: np.random.Generator) -> Image:
    """A mask (H, W) from 0 to 1: a random share of the field, with an edge between hard and wide."""
    threshold, width = rng.uniform(0.2, 0.9), float(np.exp(rng.uniform(np.log(0.01), np.log(0.4))))
    return np.clip((field - threshold) / width + 0.5, 0, 1).astype(np.float32)
