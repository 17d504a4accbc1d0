"""The data stage: scenes, spatially blocked splits, tiles of every role but training, the manifest with its hash."""

from __future__ import annotations

import itertools
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rsedge.cache.stage import StageContext
from rsedge.data.band_values import joined
from rsedge.data.bands import InputSpec
from rsedge.data.calibration import CalibrationScene, plain_tiles, save_calibration
from rsedge.data.errors import RequestError
from rsedge.data.files import atomic_path, sha256_of, write_json
from rsedge.data.paged import read_npy, sha256_with_arrays, strips, zeros
from rsedge.data.scenes.augment import AugmentSettings, ViewGenerator, check_light, prepare_scenes
from rsedge.data.scenes.clouds import CloudSettings, simulate_clouds
from rsedge.data.scenes.fractal import FractalBank
from rsedge.data.scenes.scene import Scene
from rsedge.data.scenes.shared_pixels import share_in_other_units, shared_share
from rsedge.data.scenes.splits import HELD_OUT, NONE, SPLITS, BlockSplit, block_split, few_words
from rsedge.recipe.scenes import section_scene
from rsedge.recipe.schema import Recipe
from rsedge.recipe.survey import one_by_one
from rsedge.results.data import Data

Mask = npt.NDArray[np.bool_]
IGNORE = 255
SHARED = 0.01
"""Share of a held-out role's pixels that may come back in another scene: more is no chance."""
CLOUD_SALTS = {"test": 7, "selection": 8}
"""Added to the seed, so that no cloud field is seen in both held-out roles."""


@dataclass(frozen=True)
class SplitScene:
    """A scene, which of its pixels belong to which role, and the roles that the recipe gives it (calibration goes with train)."""

    scene: Scene
    split: BlockSplit
    roles: tuple[str, ...]


@dataclass(frozen=True)
class JudgedTiles:
    """Tiles of a held-out role. Every pixel of its blocks is counted once.

    Attributes:
        dn: (N, C, T, T) digital numbers.
        labels: (N, T, T) uint8, 255 where there is none.
        counted: (N, T, T) bool, True where a pixel counts.
        block: (N, T, T) int32, number of the spatial block, for intervals.
        corner: (N, 2) int32, row and column of their first pixels in the scene.
    """

    dn: npt.NDArray[np.generic]
    labels: npt.NDArray[np.uint8]
    counted: Mask
    block: npt.NDArray[np.int32]
    corner: npt.NDArray[np.int32]

    @property
    def labelled(self) -> bool:
        return bool((self.labels[self.counted] != IGNORE).any())

    def few(self, count: int) -> npt.NDArray[np.intp]:
        """Numbers of the ``count`` tiles with the most labels."""
        known = (self.counted & (self.labels != IGNORE)).sum((1, 2))
        return np.sort(np.argsort(-known, kind="stable")[:count])

    def at(self, picks: npt.NDArray[np.intp]) -> JudgedTiles:
        """Those of some numbers."""
        return JudgedTiles(
            self.dn[picks], self.labels[picks], self.counted[picks], self.block[picks], self.corner[picks]
        )

    def on_scene(self, values: npt.NDArray[np.uint8], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """Values (N, T, T) of the counted pixels on the scene's grid of ``shape``, :data:`IGNORE` elsewhere."""
        out = np.full(shape, IGNORE, dtype=np.uint8)
        for (row, col), counted, tile in zip(self.corner, self.counted, values, strict=True):
            rows, cols = np.nonzero(counted)
            out[rows + row, cols + col] = tile[rows, cols]
        return out

    def digest(self) -> str:
        return sha256_with_arrays([self.dn, self.labels])

    @classmethod
    def empty(cls, count: int, spec: InputSpec) -> JudgedTiles:
        """Tiles to be filled in."""
        size = (count, spec.tile, spec.tile)
        return cls(
            zeros((count, spec.channels, *size[1:]), spec.dtype), zeros(size, np.uint8), zeros(size, np.bool_),
            zeros(size, np.int32), zeros((count, 2), np.int32),
        )  # fmt: skip

    def save(self, path: Path) -> None:
        with atomic_path(path) as temporary, temporary.open("wb") as f:
            np.savez_compressed(
                f, dn=self.dn, labels=self.labels, counted=self.counted, block=self.block, corner=self.corner
            )

    @classmethod
    def load(cls, path: Path) -> JudgedTiles:
        with zipfile.ZipFile(path) as z:
            return cls(*(read_npy(z.open(f"{name}.npy")) for name in ("dn", "labels", "counted", "block", "corner")))

    def note(self, role: str, classes: Sequence[str]) -> str | None:
        """What is to be said where these are few blocks, or labels without one of the classes."""
        if not self.labelled:
            return few_words(role, len(np.unique(self.block[self.counted])), "spatial blocks")
        known = self.counted & (self.labels != IGNORE)
        there = set(np.unique(self.labels[known]).tolist())
        absent = [name for number, name in enumerate(classes) if number not in there]
        return few_words(role, len(np.unique(self.block[known])), "spatial blocks with labels", absent)


def load_scenes(recipe: Recipe, spec: InputSpec, classes: Sequence[str]) -> list[SplitScene]:
    """Training scenes and held-out scenes with their splits; a scene in several roles occurs once.

    Scenes are told apart by the content of their files, so that one file under two names cannot leak
    (:func:`check_disjoint` knows one image in two files).

    Raises:
        RequestError: a scene cannot be read or has no pixel for a role, selection names the scene of the test again, or one
            file is read in two ways.
        MissingCapability: a named scene is not on this machine.
    """
    data = recipe.scenes
    test = section_scene(data.test, spec, classes)
    selection = section_scene(data.selection, spec, classes) if data.selection.is_own else test
    if data.selection.is_own and selection.sha256 == test.sha256:
        raise RequestError("data.selection: is the scene of data.test; leave source and path out to take blocks of it")
    held_out = {scene.sha256: scene for scene in (selection, test)}
    where = {selection.sha256: "data.selection", test.sha256: "data.test"}
    roles: dict[str, list[str]] = {}
    found: dict[str, Scene] = {}
    for number, section in ((i, one) for i, given in enumerate(data.train) for one in one_by_one(given)):
        scene = section_scene(section, spec, classes)
        first = found.setdefault(scene.sha256, held_out.get(scene.sha256, scene))
        if not _reads_alike(first, scene, spec):
            raise RequestError(
                f"data.train[{number}]: {section.path or section.source} is the file of {where[scene.sha256]} and is read in "
                "another way than there (bands, units, missing pixels or pixel size); give the same options in both places, or "
                "write a copy that holds what is meant"
            )
        where.setdefault(scene.sha256, f"data.train[{number}]")
        roles[scene.sha256] = ["train"]
    for role, scene in (("selection", selection), ("test", test)):
        found.setdefault(scene.sha256, scene)
        roles.setdefault(scene.sha256, []).append(role)
    found = dict(zip(found, _named_apart(list(found.values())), strict=True))
    return [SplitScene(scene, _split(recipe, scene, roles[key]), tuple(roles[key])) for key, scene in found.items()]


def _reads_alike(first: Scene, second: Scene, spec: InputSpec) -> bool:
    """Whether two readings of one file say the same of the contract's bands, to within one of its digital numbers."""
    if first is second:
        return True
    bands = [b for b in spec.bands if b.name in first.bands]
    same_bands = {b.name for b in bands} == set(spec.band_names) & set(second.bands)
    same_size = math.isclose(first.gsd_m, second.gsd_m, rel_tol=0.005)
    if not (same_bands and same_size and np.array_equal(first.valid, second.valid)):
        return False
    names, steps = [b.name for b in bands], np.array([abs(b.scale) for b in bands])[:, None, None]
    one, other = first.select(names), second.select(names)
    assert one is not None and other is not None
    step = steps if np.dtype(spec.dtype).kind != "f" else 0.0
    return all(
        bool((np.abs(a - other[:, rows]) <= step + 1e-5 * np.abs(a))[:, first.valid[rows]].all())
        for rows in strips(one.shape[1], one[:, 0].nbytes)
        if (a := one[:, rows]) is not None
    )


def _named_apart(scenes: Sequence[Scene]) -> list[Scene]:
    """The scenes; of several with one name (``a/scene.tif`` and ``b/scene.tif``) all but the first get a number."""
    out: list[Scene] = []
    for scene in scenes:
        taken = [s.name for s in scenes[: len(out)]].count(scene.name)
        out.append(replace(scene, name=f"{scene.name} ({taken + 1})") if taken else scene)
    return out


def _split(recipe: Recipe, scene: Scene, roles: Sequence[str]) -> BlockSplit:
    data = recipe.scenes
    wanted = {"train": {"calibration": data.calibration.fraction}, "selection": {"selection": data.selection.fraction},
              "test": {"test": data.test.fraction}}  # fmt: skip
    fractions = {name: fraction for role in roles for name, fraction in wanted[role].items()}
    return block_split(scene.valid.shape, data.block, fractions, recipe.seed, data.guard)


def role_views(
    recipe: Recipe, spec: InputSpec, scenes: Sequence[SplitScene], role: str, seed: int, classes: int = 0
) -> ViewGenerator:
    """Augmented views made of nothing but the pixels of one role; ``classes``: of the scenes' labels, where views have some.

    Raises:
        RequestError: no pixel is left for it, or no scene has all bands.
    """
    kept = [s for s in scenes if serves(s, role)]
    masks = [s.split.mask(role) for s in kept]
    if not any((m & s.scene.valid).any() for m, s in zip(masks, kept, strict=True)):
        raise RequestError(
            f"data: the {role} split is empty; make data.block ({recipe.scenes.block}) smaller or its fraction larger"
        )
    views = prepare_scenes([s.scene for s in kept], spec, masks, classes)
    return ViewGenerator(views, spec, view_settings(recipe), seed)


def view_settings(recipe: Recipe) -> AugmentSettings:
    """How far its views go from its scenes."""
    section = recipe.scenes
    return AugmentSettings(**section.augment.model_dump(), cloud=CloudSettings(**section.clouds.model_dump()))


def check_disjoint(scenes: Sequence[SplitScene], spec: InputSpec) -> None:
    """Holds that no pixel is in two roles, nor a held-out one in another role of another scene.

    Raises:
        RequestError: the blocks of two roles overlap, or a scene holds pixels of another one again.
    """
    taken: dict[str, dict[str, Mask]] = {}
    for s in scenes:
        own = taken.setdefault(s.scene.sha256, {})
        for role in SPLITS:
            own[role] = own.get(role, False) | s.split.mask(role)
    for s in scenes:
        own = taken[s.scene.sha256]
        for first, second in itertools.combinations(SPLITS, 2):
            shared = int((own[first] & own[second]).sum())
            if shared:
                raise RequestError(f"data: scene '{s.scene.name}': {shared} {first} pixels overlap {second} blocks")
    for role, held in ((role, s) for role in HELD_OUT for s in scenes if serves(s, role)):
        for other in (s for s in scenes if s.scene.sha256 != held.scene.sha256):
            _check_apart(held, role, other, spec)


def _check_apart(held: SplitScene, role: str, other: SplitScene, spec: InputSpec) -> None:
    """Holds that pixels of a held-out role do not come back in another role of another scene, in whatever units."""
    bands = [name for name in spec.band_names if name in held.scene.bands and name in other.scene.bands]
    taken = [name for name in SPLITS if name != role and serves(other, name)]
    if not bands or not taken:
        return
    used = np.logical_or.reduce([other.split.mask(name) for name in taken]) & other.scene.valid
    first, second = (s.scene.digital_numbers(spec, bands) for s in (held, other))
    assert first is not None and second is not None
    own = held.split.mask(role) & held.scene.valid
    for look, how in (
        (shared_share, "file"),
        (share_in_other_units, "file and other units (an offset left in, or another scale)"),
    ):
        share = look(first, own, second, used)
        if share >= SHARED:
            raise RequestError(
                f"data: scene '{other.scene.name}' ({', '.join(taken)}) holds {share:.0%} of the pixels by which scene "
                f"'{held.scene.name}' is the {role} set: it is the same image in another {how}. Give the same path in both places, "
                "so that blocks are held apart, cut what they share out of one, or take another scene"
            )


def data_stage(
    context: StageContext, recipe: Recipe, spec: InputSpec, scenes: Sequence[SplitScene], classes: Sequence[str]
) -> Data:
    """Writes ``selection.npz``, ``test.npz``, ``calibration.npz`` (DN tiles) and ``manifest.json``.

    Raises:
        RequestError: a split is empty or overlaps, bands are missing or no light, or the scene is another quantity.
    """
    _check_quantity(recipe, spec)
    check_light(spec, view_settings(recipe))
    check_disjoint(scenes, spec)
    held_out = {role: judged_tiles(recipe, spec, scenes, role) for role in HELD_OUT}
    for role, tiles in held_out.items():
        tiles.save(context.folder / f"{role}.npz")
    calibration = [_calibration_tiles(recipe, spec, scenes, draw) for draw in range(recipe.scenes.calibration.draws)]
    save_calibration(context.folder, calibration)
    manifest = _manifest(recipe, scenes, held_out, len(calibration[0]), classes)
    write_json(context.folder / "manifest.json", manifest)
    origins = {s.scene.name: {"bounds": s.scene.bounds, "taken": s.scene.taken} for s in scenes}
    return Data.model_validate({"manifest_sha256": sha256_of(manifest), "origins": origins, **manifest})


def _check_quantity(recipe: Recipe, spec: InputSpec) -> None:
    for scene in (*recipe.scenes.train, *recipe.scenes.held_out.values()):
        if scene.quantity is not None and scene.quantity != spec.quantity:
            raise RequestError(
                f"data: {scene.path} is {scene.quantity}, teacher '{recipe.teacher.name}' takes {spec.quantity}"
            )


def _calibration_tiles(
    recipe: Recipe, spec: InputSpec, scenes: Sequence[SplitScene], draw: int
) -> npt.NDArray[np.generic]:
    section = recipe.scenes.calibration
    if not section.tiles:
        return np.zeros((0, spec.channels, spec.tile, spec.tile), dtype=spec.dtype)
    if section.augmented:
        views = role_views(recipe, spec, scenes, "calibration", recipe.seed + 1)
        return np.stack([views(i) for i in range(draw * section.tiles, (draw + 1) * section.tiles)])
    drawn = [s for s in scenes if serves(s, "calibration")]
    kept = [
        CalibrationScene(dn, s.split.mask("calibration"), s.scene.valid, s.split.block)
        for s in drawn
        if (dn := s.scene.digital_numbers(spec, spec.band_names)) is not None
    ]
    if drawn and not kept:
        # Says of the first which band it lacks.
        spec.select(drawn[0].scene.bands, f"data.train: scene '{drawn[0].scene.name}'")
    return plain_tiles(kept, section.tiles, spec.tile, recipe.seed, draw)


def largest_scene(spec: InputSpec, scenes: Sequence[SplitScene]) -> npt.NDArray[np.generic] | None:
    """Digital numbers (C, H, W) of the largest scene that has all bands of the contract; None where none has."""
    for scene in sorted((s.scene for s in scenes), key=lambda scene: -scene.valid.size):
        if (dn := scene.digital_numbers(spec, spec.band_names)) is not None:
            return _without_missing(dn, scene.valid, spec)
    return None


def _without_missing(dn: npt.NDArray[np.generic], valid: Mask, spec: InputSpec) -> npt.NDArray[np.generic]:
    """The array itself (C, H, W), with the contract's nodata where a pixel is missing."""
    for band, value in zip(dn, spec.missing_dn(), strict=True):
        band[~valid] = value
    return dn


def judged_tiles(
    recipe: Recipe, spec: InputSpec, scenes: Sequence[SplitScene], role: Literal["selection", "test"]
) -> JudgedTiles:
    """The tiles of a held-out role.

    Raises:
        RequestError: its scene lacks a band of the contract, or no valid pixel lies in its blocks.
    """
    chosen = next(s for s in scenes if serves(s, role))
    scene = chosen.scene
    spec.select(scene.bands, f"data.{role}: scene '{scene.name}'")
    image = scene.select(spec.band_names)
    assert image is not None
    counted = chosen.split.mask(role) & scene.valid
    if not counted.any():
        raise RequestError(
            f"data.{role}: no valid pixel lies in a {role} block; choose another seed, a larger block or a smaller guard"
        )
    section = recipe.scenes.held_out.get(role, recipe.scenes.test)
    if section.simulated_clouds:
        return _clouded(recipe, spec, scene, image, counted, role)
    labels = scene.labels if section.labels else None
    return _tiles(recipe.scenes.block, spec, image, scene.valid, labels, counted)


def _clouded(
    recipe: Recipe,
    spec: InputSpec,
    scene: Scene,
    image: npt.NDArray[np.float32],
    counted: Mask,
    role: Literal["selection", "test"],
) -> JudgedTiles:
    """The scene's tiles in turn, each time under a simulated cloud field of its own, whose mask is the labels.

    Every tile with a counted pixel comes at least once. Other fields in each role.
    """
    wavelengths = np.array([b.wavelength_nm or 0.0 for b in spec.bands])
    if not wavelengths.all():
        raise RequestError(f"data.{role}.simulated_clouds: the teacher's bands need wavelengths")
    salt, size = CLOUD_SALTS[role], spec.tile
    settings, bank = CloudSettings(**recipe.scenes.clouds.model_dump()), FractalBank(recipe.seed + salt)
    starts = itertools.product(*(_starts(n, size) for n in counted.shape))
    windows = [w for y, x in starts if counted[w := np.s_[y : y + size, x : x + size]].any()]
    count = max(recipe.scenes.held_out.get(role, recipe.scenes.test).simulated_clouds, len(windows))
    out = JudgedTiles.empty(count, spec)
    for index in range(count):
        here = windows[index % len(windows)]
        rng = np.random.default_rng([recipe.seed, 70 + salt, index])
        clouded, layer = simulate_clouds(_cut(image, here, size), wavelengths, scene.gsd_m, rng, bank, settings)
        out.dn[index] = np.where(
            _cut(scene.valid, here, size, False), spec.to_dn(clouded), spec.missing_dn()[:, None, None]
        )
        out.labels[index], out.counted[index] = layer.labels(settings), _cut(counted, here, size, False)
        out.block[index] = _block_numbers(here, size, recipe.scenes.block, counted.shape[1])
        out.corner[index] = here[0].start, here[1].start
    return out


def _cut(array: npt.NDArray[Any], here: tuple[slice, slice], size: int, fill: Any = None) -> npt.NDArray[Any]:
    """A window (..., size, size); what lies beyond a scene smaller than that is its mirror image, or ``fill``."""
    part = array[..., here[0], here[1]]
    beyond = [(0, 0)] * (part.ndim - 2) + [(0, size - n) for n in part.shape[-2:]]
    if not any(after for _, after in beyond):
        return part
    return np.pad(part, beyond, mode="symmetric") if fill is None else np.pad(part, beyond, constant_values=fill)


def _block_numbers(here: tuple[slice, slice], size: int, block: int, width: int) -> npt.NDArray[np.int32]:
    """Numbers (size, size) of the spatial blocks of a window's pixels."""
    rows, cols = ((one.start + np.arange(size)) // block for one in here)
    return (rows[:, None] * -(-width // block) + cols[None, :]).astype(np.int32)


def _tiles(
    block: int,
    spec: InputSpec,
    image: npt.NDArray[np.float32],
    valid: Mask,
    labels: npt.NDArray[np.uint8] | None,
    counted: Mask,
) -> JudgedTiles:
    """Tiles that cover every counted pixel; where they overlap, a pixel counts in the tile whose centre is nearest."""
    size = spec.tile
    rows, cols = (_starts(n, size) for n in counted.shape)
    row_owner, col_owner = (_owner(max(n, size), at, size) for n, at in zip(counted.shape, (rows, cols), strict=True))
    owned = []
    for (i, y), (j, x) in itertools.product(enumerate(rows), enumerate(cols)):
        here = np.s_[y : y + size, x : x + size]
        own = (row_owner[y : y + size, None] == i) & (col_owner[None, x : x + size] == j)
        own &= _cut(counted, here, size, False)
        if own.any():
            owned.append((here, own))
    out = JudgedTiles.empty(len(owned), spec)
    for number, (here, own) in enumerate(owned):
        dn = np.where(valid[here], spec.to_dn(image[:, here[0], here[1]]), spec.missing_dn()[:, None, None])
        out.dn[number] = _cut(dn, np.s_[:, :], size)
        out.labels[number] = IGNORE if labels is None else _cut(labels, here, size, IGNORE)
        out.counted[number], out.block[number] = own, _block_numbers(here, size, block, counted.shape[1])
        out.corner[number] = here[0].start, here[1].start
    return out


def _starts(length: int, tile: int) -> list[int]:
    """Tile starts with at least a quarter of overlap, the last one flush with the border."""
    count = 1 if length <= tile else 1 + -(-(length - tile) // (tile - tile // 4))
    return [round(k * (length - tile) / max(1, count - 1)) for k in range(count)]


def _owner(length: int, starts: Sequence[int], tile: int) -> npt.NDArray[np.intp]:
    centres = np.array([s + tile / 2 for s in starts])
    return np.abs(np.arange(length)[:, None] + 0.5 - centres[None, :]).argmin(1)


def _manifest(
    recipe: Recipe,
    scenes: Sequence[SplitScene],
    held_out: Mapping[Literal["selection", "test"], JudgedTiles],
    calibration: int,
    classes: Sequence[str],
) -> dict[str, Any]:
    per_role: dict[str, Any] = {}
    for name in SPLITS:
        counts = {s.scene.name: int((s.split.mask(name) & s.scene.valid).sum()) for s in scenes if serves(s, name)}
        counts = {k: v for k, v in counts.items() if v}
        per_role[name] = {
            "scenes": list(counts), "pixels": sum(counts.values()), "tiles": 0, "labelled": False, "note": None,
        }  # fmt: skip
    for role, tiles in held_out.items():
        per_role[role] |= {"tiles": len(tiles.dn), "labelled": tiles.labelled, "note": tiles.note(role, classes)}
    per_role["calibration"]["tiles"] = calibration
    return {
        "seed": recipe.seed,
        "block": recipe.scenes.block,
        "splits": per_role,
        "scenes": {s.scene.name: _scene_entry(s) for s in scenes},
        "bands": [v.model_dump() for v in joined(v for s in scenes for v in s.scene.values)],
        "warnings": [w for s in scenes for w in s.scene.warnings],
        "blocks": [b for s in scenes for b in _rectangles(s)],
        **{f"{role}_sha256": tiles.digest() for role, tiles in held_out.items()},
    }


def serves(s: SplitScene, role: str) -> bool:
    """Whether a scene has the role; what trains gives calibration blocks too."""
    return ("train" if role == "calibration" else role) in s.roles


def _scene_entry(s: SplitScene) -> dict[str, Any]:
    height, width = s.scene.valid.shape
    return {
        "height": height, "width": width, "gsd_m": s.scene.gsd_m, "bands": list(s.scene.bands),
        "sha256": s.scene.sha256, "split_sha256": s.split.digest(),
    }  # fmt: skip


def _rectangles(s: SplitScene) -> list[dict[str, Any]]:
    """Blocks of a scene as rectangles, for the map of splits."""
    height, width = s.split.codes.shape
    out = []
    for row in range(0, height, s.split.block):
        for col in range(0, width, s.split.block):
            part = s.split.codes[row : row + s.split.block, col : col + s.split.block]
            codes = part[part != NONE]
            if codes.size:
                name = SPLITS[int(np.bincount(codes).argmax())]
                if not serves(s, name):
                    continue
                out.append({"scene": s.scene.name, "split": name, "row": row, "col": col,
                            "height": int(part.shape[0]), "width": int(part.shape[1])})  # fmt: skip
    return out
