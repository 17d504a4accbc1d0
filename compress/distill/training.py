"""Knowledge distillation: a student learns the teacher's outputs on augmented views, and labels where they follow the views.

A part of a larger system (:class:`rsedge.models.parts.Part`) learns the teacher part's outputs, all of them, on given samples.

Muon and AdamW with linear warm-up and cosine decay, an exponential moving average (EMA) of the weights, logits by KL divergence
and, where asked for, feature taps through connectors. All random draws come from ``(seed, step)``, those of the student's own
layers (dropout) too, so a run that was killed goes on from its last checkpoint to the same weights; on one machine with the same
thread count the result is the same bit for bit (autocast and CUDA kernels excepted). Several processes that make each step
together (:mod:`.group`) come to the same within rounding.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rsedge.compress.distill.connectors import connector
from rsedge.compress.distill.group import Group
from rsedge.compress.distill.hard_views import Gaps, HardViews, check_hard_views, differences, hard_count
from rsedge.compress.distill.hidden import hidden_matrices
from rsedge.compress.distill.loss_table import CONNECTORS, LOSSES, LogitLoss, problem
from rsedge.compress.distill.losses import Given, LossChoice
from rsedge.compress.distill.muon import OptimizerKind, Optimizers
from rsedge.compress.distill.objective import Objective, loss_of, scaled
from rsedge.compress.distill.statistics import OutputStatistics, Statistics, statistics_of
from rsedge.compress.distill.taps import TapRecorder
from rsedge.compress.distill.teacher_outputs import LABELS, PartOutputs, TeacherOutputs, batch_in_step
from rsedge.data.boxes.geometry import turned
from rsedge.data.document_check import nearest
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import atomic_path, sha256_of
from rsedge.data.turns import TURNS, turned_image
from rsedge.models.features import Features, chosen
from rsedge.models.parts import named
from rsedge.models.published import published

Source = TeacherOutputs | PartOutputs
Batch = tuple[tuple[Tensor, ...], dict[str, Tensor]]
Answer = tuple[dict[str, Tensor], dict[str, Tensor]]
"""A network's outputs and its tapped features, by name."""
Validate = Callable[[nn.Module], dict[str, float]]
StepHook = Callable[[int, int, dict[str, float]], None]
PART_LOSSES: tuple[LogitLoss, ...] = ("outputs", "embedding")
"""What outputs of parts are learned by; those for classes and boxes would take them for logits."""

IMAGE_AXES = 4
"""Of a batch of images (N, C, H, W); those of several dates (N, T, C, H, W) have one more."""
LEAST_WARMUP = 10
"""Steps over which the rate rises at least (all, where there are fewer): a full first step can blow a network up for good."""


FEATURE_LOSS = LossChoice("mse")


@dataclass(frozen=True)
class Tap:
    """One pair of features: the source's output ``teacher``, the student's feature ``student``, and how they are compared.

    ``weight`` stands beside the outputs' loss; ``loss`` and ``connector`` are names of :mod:`.loss_table`.
    """

    teacher: str
    student: str
    weight: float = 0.1
    loss: LossChoice = FEATURE_LOSS
    connector: str = "linear"


@dataclass(frozen=True)
class DistillSettings:
    """``loss``: the kind of outputs; of parts ``outputs``, or ``embedding`` for vectors and tokens.

    ``losses``: what they are learned by, added up; none: what their kind has. ``temperature`` and ``balance`` (power of the inverse
    class frequency, 0 = plain KL) are those of losses that have such options and do not say otherwise. ``labels``: share of the
    loss that labels make up, where the source has them. ``hard_views``: share of each batch that is drawn as
    :mod:`.hard_views` says, beside those that come in turn.
    """

    steps: int = 1000
    batch: int = 16
    lr: float = 2e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    ema: float = 0.995
    temperature: float = 1.0
    balance: float = 0.25
    labels: float = 0.0
    hard_views: float = 0.0
    taps: tuple[Tap, ...] = ()
    validate_every: int = 200
    patience: int = 6
    checkpoint_every: int = 100
    device: Literal["cpu", "cuda"] = "cpu"
    loss: LogitLoss = "classes"
    losses: tuple[LossChoice, ...] = ()
    autocast: Literal["auto", "bf16", "off"] = "auto"
    optimizer: OptimizerKind = "muon"
    section: str = "steps.distill"

    @property
    def objective(self) -> Objective:
        """What the outputs are trained by."""
        return Objective(self.loss, self.losses, self.temperature, self.balance, self.labels)


@dataclass
class DistillRecord:
    """What happened: loss every 10 steps, validation results, the best step, how fast it went, the teacher's statistics that
    losses were scaled by (none where none were), and by how many processes, one number after the other where they changed."""

    steps: int = 0
    best_step: int = 0
    best_score: float = -math.inf
    stopped_early: bool = False
    seconds: float = 0.0
    autocast: str = "off"
    history: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    statistics: dict[str, OutputStatistics] = field(default_factory=dict)
    processes: list[int] = field(default_factory=list)


def distill(
    source: Source,
    student: nn.Module,
    settings: DistillSettings,
    workdir: Path,
    seed: int,
    validate: Validate | None = None,
    on_step: StepHook | None = None,
    features: Features | None = None,
    statistics: Callable[[], Statistics] | None = None,
    trust: Gaps | None = None,
    group: Group | None = None,
) -> tuple[nn.Module, DistillRecord]:
    """Trains ``student`` (changed in place) on ``source``; returns the EMA student of the best validation score.

    ``validate(module)`` gives figures with a key ``score`` (higher is better); without it the last EMA weights are returned.
    Checkpoints go to ``workdir/resume.safetensors``; a rerun with the same settings continues there.

    With :class:`PartOutputs` the student takes the part's inputs in their order and gives its outputs.

    Args:
        features: what can be tapped of the student; found by :func:`rsedge.models.published.published` when not given.
        statistics: gives those of the source where losses need them and they are known; else :func:`.statistics.statistics_of`.
        trust: (N,) how far the teacher can be relied on in each view, for ``hard_views``; alike when not given.
        group: whose processes all call this alike; the one that leads validates, keeps checkpoints and gets the best student.

    Raises:
        MissingCapability: ``device`` is cuda and there is none.
        RequestError: a tap names no published feature, the loss became NaN, the student's outputs are not those of the
            teacher's part, or a step has fewer views than the group has processes.
    """
    devices = [torch.cuda.current_device()] if settings.device == "cuda" and torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        run = _Training(source, student, settings, workdir, seed, features, trust, group or Group())
        if not run.resume():
            run.begin(statistics)
        run.train(validate, on_step)
    return run.best, run.record


class _Training:
    def __init__(
        self,
        source: Source,
        student: nn.Module,
        s: DistillSettings,
        workdir: Path,
        seed: int,
        features: Features | None,
        trust: Gaps | None,
        group: Group,
    ) -> None:
        if s.device == "cuda" and not torch.cuda.is_available():
            raise MissingCapability("steps.distill.device: cuda was asked for, torch sees no CUDA GPU; use device: cpu")
        self.source, self.s, self.seed, self.group = source, s, seed, group
        check_shares(min(s.batch, source.count), group.count)
        self.outputs = source.teacher.outputs if isinstance(source, PartOutputs) else ("logits",)
        self.device = torch.device(s.device)
        # torch has no such format of 3-D kernels (five axes), and stops at them.
        plain = any(t.ndim == 5 for t in (*student.parameters(), *student.buffers()))
        form = torch.preserve_format if plain else torch.channels_last
        self.student = student.to(self.device, memory_format=form)  # type: ignore[call-overload]
        self.grid = grid_of(self.student)
        self.objective = s.objective
        self.record = DistillRecord()
        self.step = 0
        self.checkpoint = workdir / "resume.safetensors"
        views = source.digest() if isinstance(source, PartOutputs) else source.count
        self.key = sha256_of([asdict(s), seed, views, [(n, list(p.shape)) for n, p in student.state_dict().items()]])
        check_losses(s)
        self.hard = HardViews(source.count, seed, trust) if s.hard_views else None
        if isinstance(source, PartOutputs):
            self._check_part()
        self.tapped, self.connectors = self._connect(features)
        self.ema = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.best: nn.Module = self.ema
        self.student.zero_grad(set_to_none=True)
        hidden = hidden_matrices(self.student, self._read([0])[0]) if s.optimizer == "muon" else []
        self.optimizer = Optimizers((self.student, self.connectors), s.lr, s.weight_decay, hidden, kind=s.optimizer)
        self.dtype: torch.dtype | None = None

    # -- set-up ---------------------------------------------------------------------------------------------------
    def begin(self, statistics: Callable[[], Statistics] | None) -> None:
        """What a run decides once and keeps when it is resumed: what losses are scaled by, and the precision."""
        if self._scaled():
            find = (lambda: statistics_of(self.source)) if statistics is None else statistics
            self.record.statistics = dict(self.group.of_leader(find))
        self.dtype = self.group.of_leader(self._choose_autocast)
        self.record.autocast = "off" if self.dtype is None else "bf16"

    def _scaled(self) -> bool:
        """Whether some loss is scaled by what the teacher gives over the training set."""
        s, outputs = self.s, self._read([0])[1]
        axes = max(outputs[name].ndim for name in self.outputs)
        return self.objective.scaled(axes) or any(scaled(tap.loss, None, 0) for tap in s.taps)

    def _check_part(self) -> None:
        """Refuses what would train without an error, and to nothing of use: distances are broadcast."""
        if self.s.loss not in PART_LOSSES or self.s.labels:
            raise RequestError(
                f"steps.distill: a part learns by loss {' or '.join(PART_LOSSES)} and without labels, "
                f"not by {self.s.loss} with labels {self.s.labels:g}"
            )
        x, wanted = self._read(list(range(min(self.s.batch, self.source.count))))
        self.student.eval()
        with torch.no_grad():
            found = self._answers(self.student, x)
        self.student.train()
        for name, answer in found.items():
            if answer.shape != wanted[name].shape:
                raise RequestError(
                    f"distill: output '{name}' of the student is {tuple(answer.shape)}, the teacher's {tuple(wanted[name].shape)}"
                )

    def _connect(self, features: Features | None) -> tuple[Features, nn.ModuleDict]:
        """The student's tapped features and one connector per tap; one pass in eval mode (statistics stay) finds shapes."""
        if not self.s.taps:
            return (), nn.ModuleDict()
        x, outputs = self._read([0])
        own = published(self.student, x) if features is None else features
        tapped = chosen(own, [t.student for t in self.s.taps], "steps.distill.taps", "the student")
        self.student.eval()
        with torch.no_grad(), TapRecorder(self.student, tapped) as taps:
            self.student(*x)
        self.student.train()
        missing = [t.teacher for t in self.s.taps if t.teacher not in outputs]
        if missing:
            raise RequestError(f"steps.distill.taps: the teacher gives {', '.join(outputs)}, not {', '.join(missing)}")
        pairs = [(taps.out[t.student], self._taught(t, outputs)) for t in self.s.taps]
        torch.manual_seed(self.seed)
        made = {str(i): _connected(tap, *pair) for i, (tap, pair) in enumerate(zip(self.s.taps, pairs, strict=True))}
        return tapped, nn.ModuleDict(made).to(self.device)

    def _taught(self, tap: Tap, outputs: dict[str, Tensor]) -> Tensor:
        """The teacher's side of a tap, channels first: a part's outputs of three axes are tokens (N, L, C).

        Raises:
            RequestError: it is no map, line of tokens or vector.
        """
        found = outputs[tap.teacher].float()
        if found.ndim not in (2, 3, 4):
            raise RequestError(
                f"steps.distill.taps: '{tap.teacher}' gives {tuple(found.shape)}; maps, tokens and vectors can be tapped"
            )
        return found.transpose(1, 2) if found.ndim == 3 and isinstance(self.source, PartOutputs) else found

    def _choose_autocast(self) -> torch.dtype | None:
        """bf16 where asked for, or where timed forward and backward passes show that it is faster and its gradients are numbers.

        Some processors' kernels give NaN there (seen: a convolution's weights on AVX512-BF16).
        """
        if self.s.autocast == "off" or (self.s.autocast == "auto" and not _has_bf16(self.device)):
            return None
        if self.s.autocast == "auto":
            x, outputs = self._read(list(range(min(4, self.s.batch, self.source.count))))
            times = {d: self._time_pass(x, outputs, d) for d in (None, torch.bfloat16)}
            if not times[torch.bfloat16] <= 0.95 * times[None] or math.isinf(times[torch.bfloat16]):
                return None
        return torch.bfloat16

    def _time_pass(self, x: tuple[Tensor, ...], outputs: dict[str, Tensor], dtype: torch.dtype | None) -> float:
        """Seconds of a pass; infinity where its gradients are not finite."""
        probe = copy.deepcopy(self.student)
        best = math.inf
        for _ in range(3):
            start = time.perf_counter()
            with torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
                loss = self._distance(self._answers(probe, x), outputs)
            loss.backward()  # type: ignore[no-untyped-call]
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
        finite = all(bool(torch.isfinite(p.grad).all()) for p in probe.parameters() if p.grad is not None)
        return best if finite else math.inf

    # -- one step -------------------------------------------------------------------------------------------------
    def _read(self, indices: list[int], turn: int = 0, step: int | None = None, first: int = 0) -> Batch:
        """To the device, all turned by the same flip or quarter turn: a convolutional teacher follows it nearly exactly. Without a
        ``step`` views are as they are, where the source changes those of each step; ``first`` is the place of these among them.

        Tokens (N, T, D) stand for places of the image and would have to move with it, and what a part takes is no image that
        may be turned, as series are none: there nothing is.
        """
        given, outputs = self._given(indices, step, first)
        x = given if isinstance(given, tuple) else (given,)
        no_images = isinstance(self.source, PartOutputs) or x[0].ndim < IMAGE_AXES
        if no_images or (self.s.loss == "embedding" and outputs["logits"].ndim == 3):
            turn = 0

        def move(a: np.ndarray, name: str = "") -> Tensor:
            if self.s.loss == "boxes" and name in ("logits", LABELS):
                a = turned(a, turn, x[0].shape[-1], angled=True)
            places = a.ndim >= IMAGE_AXES or (name == LABELS and self.s.loss == "classes" and a.ndim > 2)
            a = turned_image(a, turn) if turn and places else np.ascontiguousarray(a)
            t = torch.from_numpy(a).to(self.device)
            return t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t

        return tuple(move(a) for a in x), {n: move(a, n) for n, a in outputs.items()}

    def _given(
        self, indices: list[int], step: int | None, first: int
    ) -> tuple[np.ndarray | tuple[np.ndarray, ...], Mapping[str, np.ndarray]]:
        if step is None or isinstance(self.source, PartOutputs):
            return self.source.batch(indices)
        return batch_in_step(self.source, indices, step, first)

    def _indices(self, step: int) -> tuple[list[int], int]:
        """Views of one step: a fresh permutation every epoch, drawn from (seed, epoch), and hard ones; and the flip."""
        count, batch = self.source.count, min(self.s.batch, self.source.count)
        hard = hard_count(self.s.hard_views, batch)
        batch -= hard
        per_epoch = max(count // batch, 1)
        epoch, at = divmod(step, per_epoch)
        order = np.random.default_rng([self.seed, 1, epoch]).permutation(count)
        turn = 0 if epoch == 0 else int(np.random.default_rng([self.seed, 2, step]).integers(TURNS))
        views: list[int] = order[at * batch : (at + 1) * batch].tolist()
        return views + (self.hard.draw(step, hard) if self.hard else []), turn

    def _layer_seed(self, step: int) -> int:
        """What the student's own layers draw by in one step (dropout, stochastic depth): other numbers for other views."""
        return self._seed_of(step, self.group.rank)

    def _seed_of(self, step: int, rank: int) -> int:
        return int(
            np.random.SeedSequence([self.seed, 3, step, *([rank] if rank else [])]).generate_state(1, np.uint64)[0]
        )

    def _batches(self) -> Iterator[tuple[list[int], Batch]]:
        """Numbers of a step's views, and this process's share of them, from the current step on, the next one read while this one
        trains."""

        def load(step: int) -> tuple[list[int], Batch]:
            indices, turn = self._indices(step)
            own = self.group.share(len(indices))
            return indices, self._read(indices[own], turn, step, own.start)

        ahead: Future[tuple[list[int], Batch]] | None = None
        with ThreadPoolExecutor(1) as pool:
            for step in range(self.step, self.s.steps):
                if self.hard:
                    self.hard.begin(step)
                ready = (ahead or pool.submit(load, step)).result()
                waits = self.hard is not None and self.hard.begins(step + 1)
                ahead = pool.submit(load, step + 1) if step + 1 < self.s.steps and not waits else None
                yield ready

    def _answers(self, net: nn.Module, x: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return named(self.outputs, net(*x))

    def _distance(self, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> Tensor:
        """The loss, summed over the outputs."""
        labels, known = wanted.get(LABELS), self.record.statistics
        return torch.stack(
            [self.objective(y, wanted[n], labels, known.get(n), self.grid) for n, y in found.items()]
        ).sum()

    def _loss(
        self, views: list[int], x: tuple[Tensor, ...], outputs: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        s = self.s
        with (
            torch.autocast(self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None),
        ):
            with self.group.norms():
                own, tapped = self.net(*x)
            found, tapped, outputs = (self.group.whole(part, len(views)) for part in (own, tapped, outputs))
            self.group.draws(self._seed_of(self.step, 0))
            features = [
                (t, self.connectors[str(i)](tapped[t.student], self._taught(t, outputs))) for i, t in enumerate(s.taps)
            ]
        if self.hard:
            apart = differences(found["logits"], outputs["logits"], s.loss)
            self.hard.learn(views, self.group.of_leader(lambda: apart))
        loss = self._distance(found, outputs)
        parts = {"loss": float(loss.detach())}
        for tap, pair in features:
            given = Given(statistics=self.record.statistics.get(tap.teacher))
            distance = loss_of(tap.loss, pair[0], pair[1], given, {})
            parts[f"tap:{tap.student}"] = float(distance.detach())
            loss = loss + tap.weight * distance
        return loss, parts

    def _rate(self, step: int) -> float:
        warm = min(self.s.steps, max(LEAST_WARMUP, round(self.s.warmup * self.s.steps)))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.s.steps - warm)))

    @torch.no_grad()
    def _update_ema(self) -> None:
        # A short memory at first, so that the average forgets the random start.
        keep = min(self.s.ema, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self.ema.state_dict().values(), self.student.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(now, 1 - keep)
            else:
                mean.copy_(now)

    # -- the loop -------------------------------------------------------------------------------------------------
    def train(self, validate: Validate | None, on_step: StepHook | None) -> None:
        s = self.s
        started, before = time.perf_counter(), self.record.seconds
        if self.record.processes[-1:] != [self.group.count]:
            self.record.processes.append(self.group.count)
        self.student.train()
        self.net = self.group.net(_Answering(self.student, self.tapped, self.outputs))
        for views, (x, outputs) in self._batches():
            self.optimizer.rate(self._rate(self.step))
            torch.manual_seed(self._layer_seed(self.step))
            loss, parts = self._loss(views, x, outputs)
            if not torch.isfinite(loss):
                raise RequestError(
                    f"{s.section}: the loss is not finite at step {self.step}; lower {s.section}.lr ({s.lr})"
                )
            self.group.backward(loss)
            self.group.mean_gradients(self.connectors)
            norm = nn.utils.clip_grad_norm_(self.student.parameters(), 5.0)
            if not torch.isfinite(norm):
                bf16 = self.dtype is not None and s.section == "steps.distill"
                way = f"set {s.section}.autocast: off" if bf16 else f"lower {s.section}.lr"
                raise RequestError(
                    f"{s.section}: the gradients are not finite at step {self.step}; {way} (lr {s.lr}, autocast "
                    f"{self.record.autocast})"
                )
            self.optimizer.step()
            self.step += 1
            self._update_ema()
            self.record.steps, self.record.seconds = self.step, before + time.perf_counter() - started
            if self.step % 10 == 0:
                self.record.history.append({"step": self.step, **parts})
            if on_step:
                on_step(self.step, s.steps, parts)
            if validate and (self.step % s.validate_every == 0 or self.step == s.steps) and self._judge(validate):
                break
            if self.step % s.checkpoint_every == 0 and self.step < s.steps and self.group.leads:
                self.save()
        if validate is None:
            self.best = self.ema
        self.checkpoint.unlink(missing_ok=True)

    def _judge(self, validate: Validate) -> bool:
        """Validates the EMA weights; True when training should stop early."""
        result = self.group.of_leader(lambda: validate(self.ema))
        self.record.validation.append({"step": self.step, **result})
        if result["score"] > self.record.best_score:
            self.record.best_score, self.record.best_step = result["score"], self.step
            self.best = copy.deepcopy(self.ema)
        waited = (self.step - self.record.best_step) / self.s.validate_every
        self.record.stopped_early = waited >= self.s.patience and self.step < self.s.steps
        return self.record.stopped_early

    # -- resume ---------------------------------------------------------------------------------------------------
    def _state(self) -> dict[str, Tensor]:
        parts: dict[str, Any] = {
            "student": self.student,
            "ema": self.ema,
            "best": self.best,
            "connectors": self.connectors,
        }
        state = {
            f"{n}/{k}": v.detach().clone().contiguous() for n, m in parts.items() for k, v in m.state_dict().items()
        }
        views = self.hard.tensors() if self.hard else {}
        return (
            state
            | {f"optimizer/{k}": v for k, v in self.optimizer.tensors().items()}
            | {f"views/{k}": v for k, v in views.items()}
        )

    def save(self) -> None:
        """Writes the checkpoint atomically; tensors only, the record as text beside them."""
        from safetensors.torch import save_file

        meta = {"key": self.key, "step": str(self.step), "record": json.dumps(asdict(self.record))}
        with atomic_path(self.checkpoint) as path:
            save_file(self._state(), path, meta)

    def _kept(self) -> tuple[dict[str, str], dict[str, Tensor]] | None:
        """What the checkpoint says and holds; None where there is none of these settings."""
        from safetensors import safe_open

        if not self.checkpoint.exists():
            return None
        with safe_open(self.checkpoint, "pt") as f:
            meta: dict[str, str] = f.metadata()
            return (meta, {k: f.get_tensor(k) for k in f.keys()}) if meta["key"] == self.key else None  # noqa: SIM118

    def resume(self) -> bool:
        """Continues from a checkpoint of the same settings; False where there is none."""
        kept = self.group.of_leader(self._kept)
        if kept is None:
            return False
        meta, state = kept
        self.best = copy.deepcopy(self.ema)
        for name, module in (
            ("student", self.student),
            ("ema", self.ema),
            ("best", self.best),
            ("connectors", self.connectors),
        ):
            module.load_state_dict({k.partition("/")[2]: v for k, v in state.items() if k.startswith(f"{name}/")})
        optimizer = "optimizer/"
        self.optimizer.load({k.removeprefix(optimizer): v for k, v in state.items() if k.startswith(optimizer)})
        if self.hard:
            self.hard.load({k.removeprefix("views/"): v for k, v in state.items() if k.startswith("views/")})
        self.step = int(meta["step"])
        self.record = DistillRecord(**json.loads(meta["record"]))
        known: dict[str, dict[str, list[float]]] = self.record.statistics  # type: ignore[assignment]
        self.record.statistics = {
            n: OutputStatistics(**{k: tuple(v) for k, v in one.items()}) for n, one in known.items()
        }
        # Timed once only: a second timing may choose otherwise, and the weights with it.
        self.dtype = torch.bfloat16 if self.record.autocast == "bf16" else None
        return True


class _Answering(nn.Module):
    """A student as steps ask it: all that a loss may reach is what its forward pass gives."""

    def __init__(self, student: nn.Module, tapped: Features, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.student, self._tapped, self._outputs = student, tapped, outputs

    def forward(self, *x: Tensor) -> Answer:
        with TapRecorder(self.student, self._tapped) as taps:
            found = named(self._outputs, self.student(*x))
        return found, taps.out


def check_shares(batch: int, processes: int) -> None:
    """
    Raises:
        RequestError: a step has fewer views than there are processes.
    """
    if batch < processes:
        raise RequestError(
            f"steps.distill.batch: a step of {batch} views cannot be shared among {processes} processes; start at most {batch}, or "
            "give a larger batch"
        )


def check_losses(s: DistillSettings) -> None:
    """
    Raises:
        RequestError: a loss or connector that there is not, of other outputs, or with other options; or hard views of outputs
            that have no differences to draw by.
    """
    check_hard_views(s.hard_views, s.loss, s.batch)
    for choice in s.losses:
        if (wrong := problem(choice.name, choice.options, s.loss)) is not None:
            raise RequestError(f"steps.distill.loss: {wrong}")
    for tap in s.taps:
        if (wrong := problem(tap.loss.name, tap.loss.options)) is not None:
            raise RequestError(f"steps.distill.taps.loss: {wrong}")
        if tap.connector not in CONNECTORS:
            raise RequestError(
                f"steps.distill.taps.connector: '{tap.connector}' is no connector{nearest(tap.connector, list(CONNECTORS))}; "
                f"there are {', '.join(CONNECTORS)}"
            )


def _connected(tap: Tap, student: Tensor, teacher: Tensor) -> nn.Module:
    """The tap's connector between features of these shapes.

    Raises:
        RequestError: its loss cannot compare what the connector gives.
    """
    row, where = LOSSES[tap.loss.name], f"steps.distill.taps: '{tap.student}' and '{tap.teacher}' by {tap.loss.name}"
    try:
        made = connector(tap.connector, student, teacher).eval()
    except ValueError as error:
        raise RequestError(f"{where}: {error}") from error
    with torch.no_grad():
        ours, theirs = made(student, teacher)
    if row.shape == "places" and ours.ndim == 2:
        raise RequestError(
            f"{where}: it compares places, and these features meet as vectors; use mse, cosine, rkd or contrastive"
        )
    if row.shape == "vectors" and ours.ndim > 2:
        raise RequestError(
            f"{where}: it compares vectors, and these are {tuple(ours.shape[1:])}; use connector: pooled"
        )
    if row.aligned and ours.shape != theirs.shape:
        raise RequestError(
            f"{where}: {ours.shape[1]} channels beside the teacher's {theirs.shape[1]}; use connector: linear"
        )
    return made.train()


def grid_of(student: nn.Module) -> Tensor | None:
    """The cells (A, 3) of a detector: centre x, y and stride (pixels); None for other networks."""
    grid: Tensor | None = getattr(student, "grid", None)
    return grid


def _has_bf16(device: torch.device) -> bool:
    """Whether bf16 can be faster: CUDA, or a CPU with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
