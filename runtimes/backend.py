"""What a runtime is to everything else: one :class:`RuntimeBackend`, found by :mod:`rsedge.runtimes.registry`.

A backend says what the runtime is called, what it computes in, how targets' devices are called there, what opens a model and what
stands in for a device that is not here. Nothing else asks which runtime it has before it.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from rsedge.data.bands import InputSpec
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.runtimes.checked import CheckedModel, Model
from rsedge.runtimes.device_cache import Built
from rsedge.runtimes.parts import PartSession
from rsedge.runtimes.precision import precision as precision_of
from rsedge.runtimes.session import Hint, Session


class TargetView(Protocol):
    """What a backend reads of a target."""

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def precision(self) -> str: ...


class GoldenView(Protocol):
    """What a backend reads of a golden vector's outcome."""

    @property
    def passed(self) -> bool: ...

    @property
    def agreement(self) -> float: ...

    @property
    def max_abs_difference(self) -> float: ...


class BundleView(Protocol):
    """What a backend reads of an opened bundle, whose bytes are checked as they are read."""

    @property
    def path(self) -> Path: ...

    @property
    def manifest_sha256(self) -> str: ...

    @property
    def target(self) -> TargetView: ...

    @property
    def input_spec(self) -> InputSpec: ...

    @property
    def build(self) -> Mapping[str, Any] | None: ...

    def model(self, name: str | None = None) -> CheckedModel: ...

    def rehearse(self, threads: int | None = None, device: str | None = None, hint: Hint = "latency") -> None: ...

    def verify(self, threads: int | None = None, device: str | None = None) -> GoldenView: ...


@dataclass(frozen=True)
class Opening:
    """How a model is opened.

    Attributes:
        input_spec: the band contract; None reads it from the model.
        device: the runtime's own name of it.
        threads: CPU threads; None: all cores that this process may use.
        hint: one tile at a time, or many in flight.
        as_written: every node as the file has it, nothing fused.
    """

    input_spec: InputSpec | None = None
    device: str = "CPU"
    precision: str = "f32"
    threads: int | None = None
    hint: Hint = "latency"
    as_written: bool = False


@dataclass(frozen=True)
class StandIn:
    """What gives a target's numbers on this machine.

    Attributes:
        backend: its name; the target's own, where the executable itself runs here.
        device, precision, as_written: how it is opened.
        words: what the report says of it.
    """

    backend: str
    device: str
    precision: str
    words: str
    as_written: bool = False


@dataclass(frozen=True)
class Engine:
    """One way in which a runtime executes bundles; ``heeds``: the options of the command line that change something there."""

    name: str
    title: str
    heeds: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Installed:
    """A Python module that brings a runtime, for ``rsedge doctor``.

    Attributes:
        distributions: packages that may have brought it.
        extra: of rsedge, that installs it; None: it comes otherwise, as ``role`` tells.
        index: a package index of its own.
        devices: lists what it finds on this machine.
    """

    name: str
    module: str
    distributions: tuple[str, ...]
    role: str
    extra: str | None = None
    index: str | None = None
    devices: Callable[[], list[str]] | None = None


@dataclass(frozen=True)
class GraphStyle:
    """Types that a runtime wants to find in an ONNX graph: ``int8`` between quantize/dequantize pairs (``signed``: activations
    int8 around 0, else uint8), ``half``: fp16 but for norms and softmax."""

    int8: bool = False
    signed: bool = False
    half: bool = False
    opset: int = 17


class RuntimeBackend(abc.ABC):
    """One runtime.

    Attributes:
        name: of this backend.
        runtime: first part of its targets' names; several backends may share one, each for its devices (:meth:`takes`).
        title: as people call it.
        suffixes: of the model files that it opens.
        cpu_precisions: those on the CPU of the machine that compresses; none where it has no CPU. Those that need instruction
            sets are there only where the processor has them.
        cpu_prior: figures of ``efficiencies.yaml`` that its predictions for an unknown CPU start from.
        built_on_device: opens only what ``rsedge build`` made on the device.
        own_process: models run in a process of their own, whose end is not the program's.
        ships_build: bundles hold ``build.json`` and ``build.sh``, for programs of the user's own.
        build_options: of ``rsedge build``.
        weights_only: whether it computes in float on weights that are stored in 8 bits.
        tells_layers: whether it tells times of layers.
        dla: whether its engines may run on a deep-learning accelerator beside the GPU.
        threads, hints, as_written: whether sessions heed these.
        parts: whether it runs networks of several parts (:meth:`open_part`).
        engines: how it executes; :meth:`engine` says which one.
        installed: modules that bring it.
        memory_bytes: what it takes beside a model.
        install_there: how a device gets it.
        readme: what a bundle's README says has to be done first, with a newline after each line.
    """

    name: ClassVar[str]
    runtime: ClassVar[str]
    title: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)
    cpu_precisions: ClassVar[tuple[str, ...]] = ()
    cpu_prior: ClassVar[str] = "onnxruntime-cpu"
    built_on_device: ClassVar[bool] = False
    own_process: ClassVar[bool] = False
    ships_build: ClassVar[bool] = False
    build_options: ClassVar[frozenset[str]] = frozenset()
    weights_only: ClassVar[bool] = False
    tells_layers: ClassVar[bool] = False
    dla: ClassVar[bool] = False
    threads: ClassVar[bool] = False
    hints: ClassVar[bool] = False
    as_written: ClassVar[bool] = False
    parts: ClassVar[bool] = False
    engines: ClassVar[tuple[Engine, ...]] = ()
    installed: ClassVar[tuple[Installed, ...]] = ()
    memory_bytes: ClassVar[int] = 200 << 20
    install_there: ClassVar[str] = ""
    no_build: ClassVar[str] = "it is ready to run"
    readme: ClassVar[str] = ""

    # ---- what it is for

    def takes(self, device: str) -> bool:
        """Whether a target's device (``npu-3720``) or one of its own (``NPU``) is this backend's, among those of its runtime."""
        return True

    def device(self, device: str) -> str:
        """Its own name of a target's device, e.g. ``npu-3720`` -> ``NPU``."""
        return "CPU"

    def measured_here(self, device: str) -> bool:
        """Whether a target's device is this machine, whose latency is measured and not predicted."""
        return device == "cpu" and bool(self.cpu_precisions)

    def runs_language_model(self, device: str) -> bool:
        """Whether the language model of a captioning bundle runs there too."""
        return False

    def check(self, precision: str) -> None:  # noqa: B027 - most have all they need
        """Refuses a recipe for it, before any work, where what makes its files is not here.

        Raises:
            MissingCapability: says what is missing and how to get it.
        """

    def engine(self, device: str, asked: str | None, built: bool) -> Engine:
        """What executes a bundle for a target's device.

        Args:
            asked: another device by the runtime's own name.
            built: whether something was built of the bundle here.
        """
        return self.engines[0] if self.engines else Engine(self.name, self.title, self._heeds())

    def all_engines(self) -> tuple[Engine, ...]:
        """Every way in which it executes."""
        return self.engines or (self.engine("cpu", None, False),)

    def _heeds(self) -> frozenset[str]:
        return frozenset({"threads"} if self.threads else ()) | frozenset({"hint"} if self.hints else ())

    def style(self, precision: str, version: str) -> GraphStyle:
        """How graphs of a precision are typed for its release ``version``."""
        return GraphStyle(precision_of(precision).quantized)

    def tolerance(self, precision: str) -> tuple[float, float]:
        """Of a golden vector: largest difference of logits as a share of the largest, and least agreement of classes."""
        made = precision_of(precision)
        return made.share, made.agreement

    # ---- running

    @abc.abstractmethod
    def open(self, model: Model, how: Opening) -> Session:
        """Opens a model file, or bytes that were checked.

        Raises:
            RequestError: no model, or one that it cannot run. MissingCapability: runtime or device is not here.
        """

    def session(self, model: Model, how: Opening) -> Session:
        """As :meth:`open`; refuses what it would not heed.

        Raises:
            RequestError: also threads below 1, a hint or ``as_written`` where it has none.
        """
        if how.threads is not None and how.threads < 1:
            raise RequestError(f"threads must be at least 1, not {how.threads}")
        if how.as_written and not self.as_written:
            raise RequestError(f"{model}: {self.title} always optimises a graph; it cannot run one as written")
        if how.hint != "latency" and not self.hints:
            raise RequestError(f"{model}: {self.title} has no performance hint; leave it out")
        return self.open(model, how)

    def open_part(self, model: Model, how: Opening) -> PartSession:
        """Opens a part of a network (:class:`rsedge.runtimes.parts.PartSession`).

        Raises:
            RequestError: no model. MissingCapability: it runs none, or runtime or device is not here.
        """
        raise MissingCapability(
            f"{model}: {self.title} runs no networks of several parts; use another runtime's target"
        )

    def open_bundle(
        self, bundle: BundleView, threads: int | None = None, device: str | None = None, hint: Hint = "latency"
    ) -> Session:
        """A bundle's executable: the model as it came, or what was built of it here.

        Raises:
            MissingCapability: the runtime, the device or what is to be built there is not here.
            IntegrityError: bytes are not what the manifest says, or what was built was altered.
        """
        target = bundle.target
        how = Opening(bundle.input_spec, device or self.device(target.device), target.precision, threads, hint)
        return self.session(bundle.model(), how)

    def built(self, bundle: BundleView, device: str | None = None) -> Built | None:
        """What was built of a bundle here, where that is optional; None where nothing was, or where a device is named."""
        return None

    def here(self, device: str, precision: str) -> StandIn:
        """What gives the numbers of a target on this machine: its own executable, or the same file on this CPU."""
        if self.measured_here(device):
            return StandIn(self.name, "CPU", precision, "this machine, its own executable")
        words = "same file on this machine's CPU, not on the device"
        return StandIn(self.name, "CPU", precision_of(precision).on_cpu, words)

    def golden(self, device: str, precision: str) -> StandIn:
        """What gives the golden vector of a bundle: the device's own executable, where it can be had."""
        return StandIn(self.name, self.device(device), precision, "")

    def check_device(self, device: str) -> str | None:
        """The device on which a fresh bundle's golden vector is run again here; None: that waits for the device."""
        return self.device(device) if self.measured_here(device) else None

    def check_note(self) -> str | None:
        """What the report says of that check."""
        return None

    # ---- building on the device

    def build(self, bundle: BundleView, options: Mapping[str, Any]) -> dict[str, Any]:
        """Builds what the device runs, kept in the device's own cache.

        Args:
            options: some of :attr:`build_options`.

        Returns:
            ``built`` (the file), ``bytes``, and what else there is to tell.

        Raises:
            RequestError: there is nothing to build.
        """
        raise RequestError(f"{bundle.path}: is for {bundle.target.name}; {self.no_build}")
