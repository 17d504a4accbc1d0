"""The trials of a search, kept by Optuna: which is next, who is at it, what became of each.

A trial belongs to the process that holds the lock of its folder; one that is under way in the storage while its lock is free was
left by a process that ended, and is the next to be gone on with. So nobody has to find out who is alive, and nothing that was
finished is done twice.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import secrets
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsedge.cache.shelf import Shelf
from rsedge.data.document_check import checked
from rsedge.data.documents import Document, Place
from rsedge.data.errors import RequestError
from rsedge.data.files import folder_lock as held
from rsedge.data.files import lock_owner, make_folder, read_json, sha256_of, write_bytes, writing
from rsedge.data.folder_lock import folder_lock
from rsedge.data.record import Record, validated
from rsedge.recipe.reading import check_document, resolved
from rsedge.search.front import Figure, Rung, State, TrialRow, higher
from rsedge.search.space import Point, Space, SpaceFile, Variable, label
from rsedge.search.storage import default_url, open_storage, telling

RECORD, SPACE = "search.json", "space.yaml"
OWN = (SPACE, "trials", "shelf")
"""What a search writes before it has begun, beside files called ``search.*``: its storage, and what databases put beside that."""
ASK_S = 60.0
DEATHS = 2
"""Processes that may end without a word at one trial; then it has failed."""
DIED = "the process at it ended without a word (killed, or out of memory)"
COUNTED = 5000
"""Points of a space that are gone through to find one that was not tried yet."""
GUESSES = 100
STARTUP = 8
"""Trials at random before the sampler goes by what it saw."""
_STATES: dict[str, State] = {
    "WAITING": "waiting", "RUNNING": "running", "COMPLETE": "done", "PRUNED": "stopped", "FAIL": "failed"
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """A trial that this process is at."""

    search: Search
    number: int
    point: Point
    target: str
    folder: Path

    def keep(self, name: str, value: Any) -> None:
        """Keeps a figure of it in the storage, at once."""
        with telling(self.search.url):
            self.search.attributes(self.number).set_user_attr(name, value)


class _Kept(Record):
    """What a search's folder says of it; ``home`` tells it from other folders in the same storage."""

    recipe: dict[str, Any]
    space: dict[str, Any]
    where: str
    objectives: tuple[str, ...]
    home: str
    own_storage: bool


class Search:
    """A folder with its stages, and the study with its trials. Made while its folder is locked: a study begins once."""

    def __init__(self, folder: Path, url: str, space: Space, objectives: tuple[str, ...], home: str) -> None:
        self.folder, self.url, self.space, self.objectives, self.home = folder, url, space, objectives, home
        self.name = f"{space.recipe.name}-{identity(space, objectives)[:12]}"
        self._kinds = {name: _distribution(variable) for name, variable in space.variables.items()}
        self._storage = open_storage(url)
        with telling(url):
            self.study = self._open()

    @property
    def shelf(self) -> Shelf:
        """Where trials share their stages."""
        return Shelf(self.folder / "shelf")

    @property
    def trials(self) -> Path:
        return self.folder / "trials"

    def _open(self) -> Any:
        import optuna

        directions = ["maximize" if higher(name) else "minimize" for name in self.objectives]
        study = optuna.create_study(
            storage=self._storage, study_name=self.name, directions=directions, load_if_exists=True
        )
        if not study.get_trials(deepcopy=False):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(self.objectives))
            if self.space.base:
                study.enqueue_trial({name: self._label(name, value) for name, value in self.space.base.items()})
        return study

    def _label(self, name: str, value: Any) -> Any:
        """A value as Optuna has it: choices as texts."""
        return label(value) if self.space.variables[name].choices is not None else value

    def _point(self, params: dict[str, Any]) -> Point:
        return {name: _value(self.space.variables[name], value) for name, value in params.items()}

    # -- what is there ----------------------------------------------------------------------------------------------
    def rows(self) -> list[TrialRow]:
        """All trials, by number.

        Raises:
            RequestError: the storage cannot be read.
        """
        with telling(self.url):
            return [self._row(t) for t in self._frozen() if not t.user_attrs.get("twin")]

    def _frozen(self) -> list[Any]:
        found: list[Any] = self.study.get_trials(deepcopy=False)
        return found

    def _row(self, t: Any) -> TrialRow:
        known, point = t.user_attrs, self._point(t.params)
        return TrialRow(
            number=t.number, state=_STATES[t.state.name], target=self.space.target_of(point), point=point,
            figures={n: validated(Figure, f, self.url) for n, f in known.get("figures", {}).items()},
            shortfalls=known.get("shortfalls", {}), rungs=tuple(validated(Rung, r, self.url) for r in known.get("rungs", ())),
            words=known.get("words", ""), seconds=known.get("seconds"), folder=known.get("folder", ""),
        )  # fmt: skip

    # -- the next one -----------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def next(self, trials: int, begin: bool = True) -> Iterator[Trial | None]:
        """The trial that is this process's for the block: one that was left, else a new one; None where there are ``trials``, or
        every point was tried. ``begin`` False begins no new one.

        Raises:
            RequestError: the storage cannot be used.
        """
        with contextlib.ExitStack() as stack:
            with telling(self.url), folder_lock(self.folder, wait_s=ASK_S):
                found = self._left(stack) or (self._asked(trials, stack) if begin else None)
            yield found

    def _left(self, stack: contextlib.ExitStack) -> Trial | None:
        for t in self._under_way():
            if t.user_attrs.get("deaths", 0) >= DEATHS:
                self.end(t.number, "failed", t.user_attrs.get("words") or DIED)
                continue
            with contextlib.suppress(RequestError):  # whoever took it where locks cannot be asked after
                return self._mine(t.number, t.params, stack)
        return None

    def _under_way(self) -> list[Any]:
        """Trials of this folder that nobody is at. In a storage of its own they need not say so: it ended while it began one."""
        unsaid = self.home if self.url == default_url(self.folder) else None
        running = [
            t for t in self._frozen() if t.state.name == "RUNNING" and t.user_attrs.get("home", unsaid) == self.home
        ]
        return [t for t in running if lock_owner(self._folder(t.number)) is None]

    def count_death(self, process: int) -> None:
        """A worker ended without a word: what it was at has one more try at the most."""
        with telling(self.url), folder_lock(self.folder, wait_s=ASK_S):
            for t in (t for t in self._under_way() if t.user_attrs.get("process") == process):
                self.attributes(t.number).set_user_attr("deaths", t.user_attrs.get("deaths", 0) + 1)

    def _asked(self, trials: int, stack: contextlib.ExitStack) -> Trial | None:
        counted = [t for t in self._frozen() if not t.user_attrs.get("twin")]
        begun = [t for t in counted if t.state.name != "WAITING"]
        if len(begun) >= trials:
            return None
        seen = {self._mark(t.params) for t in begun}
        asked = self._ask(len(begun))
        if self._mark(asked.params) in seen:
            asked.set_user_attr("twin", True)
            self.study.tell(asked.number, state=_state("FAIL"))
            if (fresh := self._fresh(seen)) is None:
                return None
            self.study.enqueue_trial({name: self._label(name, value) for name, value in fresh.items()})
            asked = self._ask(len(begun))
        return self._mine(asked.number, asked.params, stack)

    def _ask(self, begun: int) -> Any:
        """Optuna's next trial; the sampler's dice depend on how many there were alone."""
        import optuna

        seed = self.space.file.seed + begun
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True)
        return self.study.ask(self._kinds)

    def _mark(self, params: dict[str, Any]) -> str:
        """A point as a text, the same however its numbers were worked out."""
        return json.dumps(
            {n: float(f"{v:.9g}") if isinstance(v, float) else v for n, v in params.items()}, sort_keys=True
        )

    def _fresh(self, seen: set[str]) -> Point | None:
        """A point at random that was not tried; None where there is none."""
        dice = random.Random(self.space.file.seed + len(seen))

        def new(point: Point) -> bool:
            return self._mark({name: self._label(name, value) for name, value in point.items()}) not in seen

        if self.space.size is not None and self.space.size <= COUNTED:
            grids = {n: [v.value(i) for i in range(v.count or 0)] for n, v in self.space.variables.items()}
            every = [dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values())]
            left = [point for point in every if new(point)]
            return dice.choice(left) if left else None
        return next((point for _ in range(GUESSES) if new(point := self.space.draw(dice))), None)

    def _mine(self, number: int, params: dict[str, Any], stack: contextlib.ExitStack) -> Trial:
        folder, point = self._folder(number), self._point(params)
        make_folder(folder)
        stack.enter_context(held(folder))
        kept = self.attributes(number)
        kept.set_user_attr("process", os.getpid())
        kept.set_user_attr("home", self.home)
        kept.set_user_attr("folder", str(folder.relative_to(self.folder)))
        return Trial(self, number, point, self.space.target_of(point), folder)

    def _folder(self, number: int) -> Path:
        return self.trials / f"{number:04d}"

    def attributes(self, number: int) -> Any:
        """Optuna's own object of a trial that is under way, by which its figures are kept."""
        import optuna

        return optuna.trial.Trial(
            self.study, self._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
        )

    # -- what became of it ------------------------------------------------------------------------------------------
    def done(
        self, trial: Trial, figures: dict[str, Figure], shortfalls: dict[str, float], words: str, seconds: float
    ) -> None:
        """A trial that came to its end.

        Raises:
            RequestError: the storage cannot be used.
        """
        with telling(self.url):
            kept = self.attributes(trial.number)
            kept.set_user_attr("figures", {name: found.model_dump() for name, found in figures.items()})
            self._limits(kept, shortfalls)
            kept.set_user_attr("words", words)
            kept.set_user_attr("seconds", seconds)
            self.study.tell(trial.number, [figures[name].value for name in self.objectives])

    def end(
        self,
        number: int,
        state: State,
        words: str,
        shortfalls: dict[str, float] | None = None,
        seconds: float | None = None,
    ) -> None:
        """A trial that was ``stopped`` or ``failed``, and why.

        Raises:
            RequestError: the storage cannot be used.
        """
        with telling(self.url):
            kept = self.attributes(number)
            self._limits(kept, shortfalls or {})
            kept.set_user_attr("words", words)
            kept.set_user_attr("seconds", seconds)
            self.study.tell(number, state=_state("PRUNED" if state == "stopped" else "FAIL"))

    def _limits(self, kept: Any, shortfalls: dict[str, float]) -> None:
        """Gates are constraints of the sampler: 0 or less holds."""
        kept.set_user_attr("shortfalls", shortfalls)
        for name, value in shortfalls.items():
            kept.set_constraint(name, value)

    def reference_ms(self, shape: Sequence[int], measured: float) -> float:
        """The teacher's latency on such inputs that all measured ones are told in: what the first trial with them measured."""
        name = f"teacher_ms {'x'.join(map(str, shape))}"
        with telling(self.url), folder_lock(self.folder, wait_s=ASK_S):
            known = self.study.user_attrs.get(name)
            if known is None:
                self.study.set_user_attr(name, measured)
            return float(measured if known is None else known)


def _state(name: str) -> Any:
    import optuna

    return optuna.trial.TrialState[name]


def _distribution(variable: Variable) -> Any:
    """Of Optuna: choices as texts, numbers as they are."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if variable.choices is not None:
        return CategoricalDistribution([label(choice) for choice in variable.choices])
    assert variable.low is not None and variable.high is not None
    high = variable.high if variable.count is None else variable.value(variable.count - 1)
    if variable.whole:
        return IntDistribution(int(variable.low), int(high), step=int(variable.step or 1), log=variable.log)  # type: ignore[arg-type]
    return FloatDistribution(float(variable.low), float(high), step=variable.step, log=variable.log)  # type: ignore[arg-type]


def _value(variable: Variable, kept: Any) -> Any:
    return kept if variable.choices is None else next((c for c in variable.choices if label(c) == kept), kept)


def identity(space: Space, objectives: Sequence[str]) -> str:
    """What makes two searches the same."""
    return sha256_of([space.values, json.loads(space.file.model_dump_json()), list(objectives)])


def begin_search(folder: Path, space: Space, objectives: tuple[str, ...], url: str | None = None) -> Search:
    """A new search in a folder, or the same one gone on with. Of several commands at once, as a script for Slurm begins, one
    begins it.

    Raises:
        RequestError: the folder holds another search or other things, or the storage cannot be used.
    """
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder}: is no folder of a search; choose another --search-dir")
    with writing(folder):
        make_folder(folder)
    with folder_lock(folder, wait_s=ASK_S):
        return _begun(folder, space, objectives, url)


def _begun(folder: Path, space: Space, objectives: tuple[str, ...], url: str | None) -> Search:
    if (folder / RECORD).is_file():
        found = _opened(folder, url)
        if identity(found.space, found.objectives) != identity(space, objectives):
            raise RequestError(
                f"{folder}: holds a search over another recipe, space or objectives; give the same, or another --search-dir"
            )
        return found
    if any(not p.name.startswith((".", "search.")) and p.name not in OWN for p in folder.iterdir()):
        raise RequestError(f"{folder}: is no folder of a search; choose another --search-dir")
    _check_writable(folder)
    Search(folder, url or default_url(folder), space, objectives, "")  # a storage that cannot be used leaves no record
    make_folder(folder / "trials")
    write_bytes(folder / SPACE, f"# Written by rsedge search: what was varied.\n{space.text()}".encode())
    kept = _Kept(
        recipe=space.values, space=json.loads(space.file.model_dump_json(exclude_defaults=True)), where=space.where,
        objectives=objectives, home=secrets.token_hex(8), own_storage=url is None,
    )  # fmt: skip
    write_bytes(folder / RECORD, kept.model_dump_json().encode())
    return _opened(folder, url)


def _check_writable(folder: Path) -> None:
    with writing(folder):
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()


def open_search(folder: Path, url: str | None = None) -> Search:
    """The search in a folder.

    Raises:
        RequestError: there is none, or its storage cannot be used or has to be named.
    """
    with folder_lock(folder, wait_s=ASK_S):
        return _opened(folder, url)


def _opened(folder: Path, url: str | None) -> Search:
    if not (folder / RECORD).is_file():
        raise RequestError(f"{folder}: there is no search; begin one: rsedge search RECIPE --search-dir {folder}")
    known = validated(_Kept, read_json(folder / RECORD), folder / RECORD)
    if url is None and not known.own_storage:
        raise RequestError(f"{folder}: its trials are in a storage that was named; name it again: --storage URL")
    recipe = check_document(Document(known.recipe, {(): Place(str(folder / RECORD))}))
    file = checked(Document(known.space, {(): Place(str(folder / RECORD))}, "search space"), SpaceFile)
    space = Space(known.where, recipe, resolved(recipe), file)
    return Search(folder, url or default_url(folder), space, known.objectives, known.home)
