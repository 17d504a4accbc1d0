"""The stage ``data``: samples of the whole, read, checked, and dealt to the roles by whole groups."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rsedge.cache.stage import StageContext
from rsedge.data.arrays import array_headers, read_arrays
from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_file, sha256_of
from rsedge.data.scenes.splits import few_words
from rsedge.results.data import Data, SampleSet, Split
from rsedge.runtimes.inference.works.wholes import read_together
from rsedge.stages.parts.context import GROUP, ROLES, PartsContext, Role, role_file


def data_stage(context: StageContext, ctx: PartsContext) -> Data:
    """Writes the samples of every role.

    Raises:
        RequestError: the file lacks an array, or has one of another shape or type, or too few groups.
    """
    section = ctx.recipe.data
    arrays = read_together(section.samples, ctx.inputs)
    count = len(next(iter(arrays.values())))
    given = GROUP in array_headers(section.samples)
    groups = _groups(ctx, count) if given else np.array([f"{i:06d}" for i in range(count)])
    roles = dealt(groups, section.test, section.selection, ctx.recipe.seed, str(section.samples))
    splits: dict[str, Split] = {}
    hashes: dict[str, str] = {}
    for role in ROLES:
        rows = np.flatnonzero(roles == role)
        path = context.folder / role_file(role).name
        np.savez(
            path, allow_pickle=False, **{name: value[rows] for name, value in arrays.items()}, **{GROUP: groups[rows]}
        )
        units = len(np.unique(groups[rows]))
        note = few_words(role, units, "groups") if role != "train" else None
        splits[role] = Split(scenes=[section.samples.name], pixels=None, tiles=len(rows), labelled=False, note=note)
        hashes[role] = sha256_of([int(i) for i in rows])
    digest = sha256_file(section.samples)
    alone = f"{section.samples.name} has no '{GROUP}': each sample counts as its own, and what is alike may lie in several roles"
    return Data(
        manifest_sha256=sha256_of([digest, hashes]), seed=ctx.recipe.seed, splits=splits, scenes={}, blocks=[],
        samples=SampleSet(
            name=section.samples.name, sha256=digest, count=count, groups=len(np.unique(groups)), folds=1
        ),
        selection_sha256=hashes["selection"], test_sha256=hashes["test"], warnings=[] if given else [alone],
    )  # fmt: skip


def _groups(ctx: PartsContext, count: int) -> npt.NDArray[np.str_]:
    path = ctx.recipe.data.samples
    groups = read_arrays(path, [GROUP])[GROUP]
    if groups.shape != (count,):
        raise RequestError(f"{path}: '{GROUP}' is {groups.shape}; needed is one for each of {count} samples")
    return groups.astype(str)


def dealt(groups: npt.NDArray[np.str_], test: float, selection: float, seed: int, where: str) -> npt.NDArray[np.str_]:
    """The role (N,) of each sample: whole groups, drawn by the seed.

    Raises:
        RequestError: there are fewer groups than roles.
    """
    names = np.unique(groups)
    if len(names) < len(ROLES):
        raise RequestError(
            f"{where}: holds {len(names)} groups; at least {len(ROLES)} are needed, one for each of {', '.join(ROLES)}. "
            f"Record more samples, or tell more groups apart in '{GROUP}'"
        )
    order = np.random.default_rng([seed, 17]).permutation(names)
    held = {"test": max(1, math.floor(test * len(names))), "selection": max(1, math.floor(selection * len(names)))}
    held["test"] = min(held["test"], len(names) - 2)
    held["selection"] = min(held["selection"], len(names) - 1 - held["test"])
    role: dict[str, Role] = {}
    for i, name in enumerate(order):
        role[str(name)] = "test" if i < held["test"] else "selection" if i < sum(held.values()) else "train"
    return np.array([role[str(name)] for name in groups])


def role_sizes(ctx: PartsContext) -> dict[Role, int]:
    """How many samples each role holds."""
    splits = ctx.results.of(Data).splits
    return {role: splits[role].tiles for role in ROLES}
