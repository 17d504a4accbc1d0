"""Several processes that train one student together, by Lightning Fabric and torch's DistributedDataParallel.

Gradients, batch statistics and losses are those of the whole step (:mod:`.group`, :mod:`.global_norm`); gloo carries them between
CPUs, NCCL between GPUs. What the leading process finds for all goes over a second, patient group: others wait for a teacher's stage
or a validation as long as it takes, and for a step at most :data:`STEP_S`.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.fabric.strategies import DDPStrategy
from torch import Tensor, nn

from rsedge.compress.distill.global_norm import GlobalNorm
from rsedge.compress.distill.group import Device, Found, Group, Member
from rsedge.data.errors import MissingCapability, RequestError

STEP_S, PATIENCE_DAYS = 600, 30


class GroupLost(MissingCapability):
    """A process of the group ended or is not heard of; nothing finished is lost."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}\nwhat was finished is kept, and distillation up to its last checkpoint\n"
            "run the same command again to go on, with as many processes as you like"
        )


class FabricGroup(Group):
    """A group that this process has joined; :meth:`leave` ends it."""

    def __init__(self, fabric: Fabric, member: Member) -> None:
        self.count, self.rank = member.count, member.rank
        self._fabric, self._member = fabric, member
        self._patient: Any = dist.new_group(backend="gloo", timeout=timedelta(days=PATIENCE_DAYS))

    def leave(self) -> None:
        dist.destroy_process_group()

    def of_leader(self, find: Callable[[], Found]) -> Found:
        box: list[Any] = [find() if self.leads else None]
        dist.broadcast_object_list(box, 0, self._patient)
        found: Found = box[0]
        return found

    def net(self, module: nn.Module) -> nn.Module:
        return self._fabric.setup(module, move_to_device=False)

    def share(self, count: int) -> slice:
        sizes = self._sizes(count)
        first = sum(sizes[: self.rank])
        return slice(first, first + sizes[self.rank])

    def _sizes(self, count: int) -> list[int]:
        """How many of a step's views each process has."""
        return [count // self.count + (rank < count % self.count) for rank in range(self.count)]

    def whole(self, values: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        return {name: _Gathered.apply(value, self, count) for name, value in values.items()}

    def gathered(self, value: Tensor, count: int) -> Tensor:
        """(views of this process, ...) -> (count, ...), bytes as they are."""
        sizes = self._sizes(count)
        padded = value.new_zeros(max(sizes), *value.shape[1:])
        padded[: len(value)] = value
        rows = self._exchanged(padded.view(-1).view(torch.uint8)).view(value.dtype).view(self.count, *padded.shape)
        return torch.cat([rows[rank, :size] for rank, size in enumerate(sizes)])

    def _exchanged(self, value: Tensor) -> Tensor:
        """(N,) of this process -> (processes, N)."""
        out = value.new_empty(self.count, *value.shape)
        dist.all_gather(list(out.unbind()), value)
        return out

    def norms(self) -> GlobalNorm:
        return GlobalNorm(self._exchanged)

    def draws(self, seed: int) -> None:
        torch.manual_seed(seed)

    def backward(self, loss: Tensor) -> None:
        self._fabric.backward(loss)

    def mean_gradients(self, module: nn.Module) -> None:
        for p in module.parameters():
            if p.grad is not None:
                dist.all_reduce(p.grad)
                p.grad /= self.count

    @contextlib.contextmanager
    def cores(self, threads: int) -> Iterator[None]:
        """Slurm gives each process cores of its own; others divide what there is."""
        before = torch.get_num_threads()
        torch.set_num_threads(
            threads if self._member.launcher == "slurm" else max(1, threads // self._member.local_count)
        )
        try:
            yield
        finally:
            torch.set_num_threads(before)


class _Gathered(torch.autograd.Function):
    """All processes work out one and the same loss of what is gathered; each gradient goes back to the process that it is of. It is
    taken times the processes, since DistributedDataParallel gives the mean over them and the sum is wanted."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: FabricGroup, count: int) -> Tensor:
        ctx.own, ctx.count = group.share(count), group.count
        return group.gathered(value, count)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0][ctx.own] * ctx.count, None, None


class _Local(LightningEnvironment):
    """Processes of one machine that rsedge starts itself."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self._local_rank, self._main_port = member.local_rank, member.port

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    def local_rank(self) -> int:
        return self._local_rank

    def node_rank(self) -> int:
        return 0


def join(member: Member, device: Device) -> FabricGroup:
    """The group, once all its processes are there.

    Raises:
        RequestError: a machine has fewer GPUs than processes, or Slurm's or torchrun's variables do not go together.
        GroupLost: the others do not come.
    """
    check_devices(device, member.local_count)
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Newer torch has another name for it, torch 2.9 this one alone.
    warnings.filterwarnings("ignore", message=".*`broadcast_buffers` is deprecated")
    # A graph that never changes: parameters that reach no output stay without gradients, as in one process.
    strategy = DDPStrategy(
        static_graph=True, broadcast_buffers=False, timeout=timedelta(seconds=STEP_S),
        process_group_backend="nccl" if device == "cuda" else "gloo",
    )  # fmt: skip
    with _found():
        fabric = Fabric(
            accelerator=device, devices=member.local_count, num_nodes=member.count // member.local_count,
            strategy=strategy, plugins=[_environment(member)],
        )  # fmt: skip
    try:
        fabric.launch()
        return FabricGroup(fabric, member)
    except RuntimeError as error:
        raise GroupLost(
            f"process {member.rank} of {member.count} did not find the others: {first_line(error)}"
        ) from error


@contextlib.contextmanager
def _found() -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise RequestError(f"the processes that were started do not make a group: {first_line(error)}") from error


def _environment(member: Member) -> ClusterEnvironment:
    if member.launcher == "slurm":
        return SLURMEnvironment(auto_requeue=False)
    return TorchElasticEnvironment() if member.launcher == "torchrun" else _Local(member)


def check_devices(device: Device, processes: int) -> None:
    """
    Raises:
        RequestError: this machine has fewer GPUs than processes that each need one.
    """
    if device == "cuda" and torch.cuda.device_count() < processes:
        raise RequestError(
            f"device: cuda gives each process a GPU of its own, and this machine has {torch.cuda.device_count()} for "
            f"{processes} processes; start as many as it has"
        )


def is_lost(error: RuntimeError) -> bool:
    """Whether an error is that of a connection to another process."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in text or "connection" in text


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
