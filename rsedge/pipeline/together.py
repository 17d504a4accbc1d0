"""One run by several processes: one makes its stages, the others join it for those that train a student.

The process that leads runs as if alone and says what it begins and what is done; the others go through the same stages, take what
is there, and do their part where it is begun (:mod:`rsedge.cache.following`). Processes of this machine are started when the first
stage is made that wants them; those that torchrun or Slurm started are there from the beginning.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rsedge.cache.following import BEGUN, DONE, END, FollowedStages, NoMoreStages, Word
from rsedge.cache.run_folder import RunFolder
from rsedge.cache.stage import StageContext
from rsedge.crew import Crew, Place, Record
from rsedge.data.errors import RequestError, RsedgeError, missing_extra
from rsedge.pipeline.line import Crowd, StageLine
from rsedge.progress import Reporter
from rsedge.recipe.reading import AnyRecipe
from rsedge.recipe.schema import Recipe

if TYPE_CHECKING:
    from rsedge.compress.distill.fabric import FabricGroup
    from rsedge.compress.distill.group import Device, Launcher, Member

LOOK_S, LAST_WORDS_S, LEAVING_S, COMING_S = 0.5, 5.0, 60.0, 600.0
READY = "ready"
LOST = 74
"""Exit code of a process that lost the others: not it is the one that failed."""


@dataclass(frozen=True)
class Company:
    """The processes of a run.

    Attributes:
        member: this one's place among those that torchrun or Slurm started; None where rsedge starts the others.
    """

    count: int = 1
    member: Member | None = None

    @property
    def follows(self) -> bool:
        """Whether another process leads."""
        return self.member is not None and self.member.rank > 0


ALONE = Company()


@dataclass(frozen=True)
class Job:
    """What those that follow are told first."""

    line: Callable[[Recipe, RunFolder, Reporter], StageLine]
    recipe: Recipe
    folder: Path


def company_of(recipe: AnyRecipe, processes: int | None) -> Company:
    """The processes that the command asks for, or that torchrun or Slurm started.

    Raises:
        RequestError: the two are not the same number, or the recipe cannot be shared among so many.
        MissingCapability: Lightning is not installed.
    """
    member = member_of(os.environ)
    count = member.count if member else processes or 1
    if processes not in (None, count):
        raise RequestError(f"--processes {processes}: {count} were started together; give that number, or leave it out")
    if count == 1:
        return ALONE
    if importlib.util.find_spec("lightning") is None:
        raise missing_extra("lightning", "scale", f"training by {count} processes")
    if not isinstance(recipe, Recipe):
        raise RequestError("--processes: a recipe of several parts is trained by one process; leave it out")
    from rsedge.compress.distill.fabric import check_devices
    from rsedge.compress.distill.training import check_shares

    section = recipe.distill
    check_shares(min(section.batch, section.views), count)
    check_devices(recipe.device, member.local_count if member else count)
    return Company(count, member)


def member_of(environment: Mapping[str, str]) -> Member | None:
    """A process's place among those that torchrun or Slurm's ``srun`` started; None where neither did, or one alone.

    Raises:
        RequestError: machines have other numbers of processes.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        rank, count, local, of = (int(environment[n]) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    elif "SLURM_STEP_NUM_TASKS" in environment:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_NUM_NODES")
        rank, count, local, nodes = (int(environment[name]) for name in names)
        of = count // nodes if count % nodes == 0 else 0
    else:
        return None
    if not of or count % of:
        raise RequestError(f"{count} processes were started, and not as many on each machine; start as many on each")
    from rsedge.compress.distill.group import Member

    launcher: Launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in environment else "slurm"
    return Member(launcher, rank, count, local, of) if count > 1 else None


# -- who leads ------------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def led(line: StageLine, company: Company) -> Iterator[None]:
    """Within the block the line's stages are made by all of the company; it is over with the last stage that several make.

    Raises:
        MissingCapability: one of the others ended, or is not heard of. RequestError: what one of them cannot go on for.
    """
    if company.count == 1:
        yield
        return
    with contextlib.ExitStack() as stack:
        leading = Leading(line, company, stack)
        line.crowd = leading
        try:
            leading.join_those_there()
            yield
        except RuntimeError as error:
            raise leading.why(error) or error from error
        finally:
            leading.release()


class Leading(Crowd):
    """The company as the process that leads sees it; ``stack`` ends the processes that are started."""

    def __init__(self, line: StageLine, company: Company, stack: contextlib.ExitStack) -> None:
        self._line, self._company, self._stack = line, company, stack
        self._shared = [row.name for row in line.rows if row.together]
        self._untold: list[Word] = []
        self._group: FabricGroup | None = None
        self._crew: Crew | None = None
        self._told = self._amid = False

    def join_those_there(self) -> None:
        if self._company.member is not None:
            self._join(self._company.member)

    def _join(self, member: Member) -> None:
        from rsedge.compress.distill.fabric import join

        self._group = join(member, self._line.ctx.recipe.device)

    def begun(self, name: str) -> None:
        if name not in self._shared:
            return
        if self._group is None:
            self._start_others()
        if not self._told:
            self._tell_all()
        self._say((BEGUN, name))
        self._amid, self._line.ctx.group = True, self._group

    def _start_others(self) -> None:
        count, port, device = self._company.count, _free_port(), self._line.ctx.recipe.device
        self._line.reporter.note(f"  {count} processes, of which {count - 1} are started now")
        self._crew = self._stack.enter_context(Crew(_work, (count, port, device), count - 1, "training"))
        from rsedge.compress.distill.group import Member

        for number, news in itertools.islice(self._crew.news(COMING_S), count - 1):
            if not isinstance(news, dict):
                raise self._failure([(number, news)])
        self._join(Member("local", 0, count, 0, count, port))

    def _tell_all(self) -> None:
        """The job, and what was done before."""
        ctx = self._line.ctx
        assert self._group is not None
        recipe = ctx.recipe.model_copy(update={"threads": ctx.threads})
        job = Job(type(self._line), recipe, ctx.run.root.absolute())
        self._group.of_leader(lambda: job)
        self._told = True
        for word in self._untold:
            self._say(word)

    def done(self, name: str) -> None:
        self._amid = False
        if self._told:
            self._say((DONE, name))
        else:
            self._untold.append((DONE, name))
        if name == self._shared[-1]:
            self.release()

    def _say(self, word: Word) -> None:
        if self._group is not None:
            self._group.of_leader(lambda: word)

    def release(self) -> None:
        """Lets the others go, where they are not amid a stage."""
        from rsedge.compress.distill.group import Group

        group, self._group, self._line.ctx.group = self._group, None, Group()
        if group is None:
            return
        if not self._amid:
            group.of_leader(lambda: (END, "") if self._told else None)
            if self._crew is not None:
                list(self._crew.news(LEAVING_S))
        self._stack.close()
        group.leave()

    def why(self, error: RuntimeError) -> RsedgeError | None:
        """What an error amid a stage comes from, where it comes from another process."""
        from rsedge.compress.distill.fabric import GroupLost, first_line, is_lost

        if not is_lost(error):
            return None
        gone = list(self._crew.news(LAST_WORDS_S)) if self._crew is not None else []
        failed = [(number, news) for number, news in gone if isinstance(news, RsedgeError) or news not in (0, LOST)]
        return (
            self._failure(failed)
            if failed
            else GroupLost(f"another process is not heard of any more: {first_line(error)}")
        )

    def _failure(self, gone: Sequence[tuple[int, Record | RsedgeError | int]]) -> RsedgeError:
        """Of processes that this one started and that ended: the first's."""
        from rsedge.compress.distill.fabric import GroupLost

        number, news = gone[0]
        if isinstance(news, RsedgeError):
            return news
        return GroupLost(
            f"process {number + 1} of {self._company.count} ended without a word (exit code {news}; -9 is often a want of memory)"
        )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


# -- who follows ----------------------------------------------------------------------------------------------------------
def _work(job: tuple[int, int, Device], place: Place) -> None:
    """The life of a process that this one's command started; it ends with the one that leads."""
    from rsedge.compress.distill.fabric import GroupLost
    from rsedge.compress.distill.group import Member

    count, port, device = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that leads hears it, and ends the others
    threading.Thread(target=_watch, args=(place,), name="rsedge-training-alone", daemon=True).start()
    rank = place.number + 1
    place.send({"status": READY})
    try:
        follow(Company(count, Member("local", rank, count, rank, count, port)), device)
    except GroupLost as error:
        raise SystemExit(LOST) from error


def _watch(place: Place) -> None:
    """Ends this process once the one that began it is gone."""
    while not place.alone():
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGKILL)


def follow(company: Company, device: Device) -> None:
    """Does this process's part of a run that another one leads, until nothing is left to be done together.

    Raises:
        MissingCapability: the others are lost, or what the one that leads made is not here. RequestError: as the stages.
    """
    from rsedge.compress.distill.fabric import GroupLost, first_line, is_lost, join

    assert company.member is not None
    group = join(company.member, device)
    try:
        job = group.of_leader(lambda: None)
        if job is not None:
            _follow(job, group)
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise GroupLost(f"process {group.rank} of {group.count} lost the others: {first_line(error)}") from error
    group.leave()


def _follow(job: Job, group: FabricGroup) -> None:
    run = RunFolder(job.folder)
    with Reporter(quiet=True) as reporter:
        line = job.line(job.recipe, run, reporter)
        line.ctx.group = group
        rows = {row.name: row for row in line.rows}

        def part(name: str, context: StageContext) -> None:
            rows[name].shared()(context, line.ctx)

        def hear() -> Word:
            return group.of_leader(lambda: (END, ""))

        line.stages = FollowedStages(run, on_end=line.ended, results=line.ctx.results, hear=hear, part=part)
        with contextlib.suppress(NoMoreStages):
            line.run_all()
