"""ONNX -> serialized TensorRT engine, by whichever TensorRT is there: the one way for sessions and the remote runner.

Held to the API of 10.x by type stubs (``tensorrt-stubs``, ``make lint``) and run for real by TensorRT for RTX, which builds
without a GPU; the classic module's own branches (builder flags, timing cache, DLA) run on a Jetson only.

Travels with the runner: Python 3.8, the device's own TensorRT and the error types.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.runtimes.checked import CheckedModel, Model
from rsedge.runtimes.tensorrt.dla import Placement, use_dla
from rsedge.runtimes.tensorrt.module import builder_flag, last_errors, make_logger, mechanism, sizes

if TYPE_CHECKING:
    import tensorrt as api


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        precision: of the bundle; decides builder flags where flags decide (TensorRT 8, and DLA before 11).
        dla: DLA core to prefer, None for the GPU alone.
        max_batch: tiles in one run at most, for a model exported with a dynamic batch.
        version_compatible: an engine that newer TensorRT of the same major version loads too (8.6 and later), a little slower.
    """

    precision: str = "fp16"
    dla: int | None = None
    max_batch: int = 1
    version_compatible: bool = False


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A serialized engine, what the builder measured (empty: nothing), and where layers run if DLA was asked for."""

    engine: bytes
    timing: bytes
    placement: list[Placement]


def build_options(trt: Any, where: str, made: dict[str, Any], precision: str) -> BuildOptions:
    """What a bundle was exported for, held against the TensorRT that is here.

    Args:
        where: for messages. made: the manifest's ``build``.

    Raises:
        MissingCapability: int8 exported for builder flags, but this TensorRT has none, or the other way round.
    """
    how = mechanism(trt.__name__, trt.__version__)
    wanted = made.get("precision_mechanism", how)
    if wanted != how and precision == "int8":
        raise MissingCapability(
            f"{where}: was exported for TensorRT {made.get('trt_version')} ({wanted}), here is "
            f"{trt.__name__} {trt.__version__} ({how}), which would build int8 from it with other types between its layers; "
            "export it for this version (device profile: software)"
        )
    return BuildOptions(precision, dla=(made.get("dla") or {}).get("core"), max_batch=int(made.get("max_batch", 1)))


def compile_onnx(
    trt: Any,
    path: Model,
    options: BuildOptions | None = None,
    capability: Any = None,
    timing: bytes | None = None,
) -> Compiled:
    """Builds an engine of a typed ONNX file.

    Args:
        capability: GPU generation to compile for (``tensorrt_rtx`` only); None: the GPU of this machine.
        timing: the timing cache to start from (classic TensorRT only); None: none is kept.

    Raises:
        RequestError: TensorRT cannot parse or compile it (with its words), or DLA would fall back too often.
        MissingCapability: TensorRT does not start, or lacks what is asked for.
    """
    options = options or BuildOptions()
    logger = make_logger(trt)
    try:
        builder: api.Builder = trt.Builder(logger)
    except TypeError as error:  # the binding's way to say that the library returned nothing
        raise MissingCapability(f"{trt.__name__} {trt.__version__} does not start: {last_errors(logger)}") from error
    with _parser_messages(trt, path):
        return _compiled(trt, builder, logger, path, options, capability, timing)


@contextlib.contextmanager
def _parser_messages(trt: Any, path: Model) -> Iterator[None]:
    """What the binding says in exceptions of Python's: of values that it cannot take over, and in no UTF-8."""
    try:
        yield
    except (RuntimeError, ValueError, OverflowError) as error:
        raise RequestError(
            f"{path}: {trt.__name__} {trt.__version__} cannot take it: {str(error).splitlines()[0]}"
        ) from error


def _compiled(
    trt: Any,
    builder: api.Builder,
    logger: Any,
    path: Model,
    options: BuildOptions,
    capability: Any,
    timing: bytes | None,
) -> Compiled:
    how = mechanism(trt.__name__, trt.__version__, options.dla is not None)
    network = builder.create_network(network_flags(trt, how))
    _parse(trt, network, logger, path)
    config = builder.create_builder_config()
    for flag in precision_flags(trt, how, options.precision):
        config.set_flag(flag)
    if options.version_compatible:
        config.set_flag(builder_flag(trt, "VERSION_COMPATIBLE"))
    _set_profile(trt, builder, network, config, options.max_batch, path)
    placement = [] if options.dla is None else use_dla(trt, builder, network, config, options.dla, options.precision)
    if capability is not None:
        for_rtx: Any = config  # not in the classic API
        for_rtx.num_compute_capabilities = 1
        for_rtx.set_compute_capability(capability, 0)
    if timing is not None:
        _set_timing(trt, config, timing)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RequestError(f"{path}: {trt.__name__} {trt.__version__} cannot compile it: {last_errors(logger)}")
    measured = b"" if timing is None else bytes(memoryview(config.get_timing_cache().serialize()))
    return Compiled(bytes(memoryview(engine)), measured, placement)


def network_flags(trt: Any, how: str) -> int:
    """Creation flags. Before 10 explicit batch must be asked for; where strongly typed is all there is, its flag may be gone."""
    flags = trt.NetworkDefinitionCreationFlag.__members__
    wanted = ["STRONGLY_TYPED"] if how == "strongly_typed" else ["EXPLICIT_BATCH"]
    return sum(1 << int(flags[name]) for name in wanted if name in flags)


def _parse(trt: Any, network: api.INetworkDefinition, logger: Any, path: Model) -> None:
    parser: api.OnnxParser = trt.OnnxParser(network, logger)
    if not (parser.parse(path.content()) if isinstance(path, CheckedModel) else parser.parse_from_file(str(path))):
        reasons = [str(parser.get_error(i).desc()) for i in range(parser.num_errors)]
        raise RequestError(f"{path}: {trt.__name__} {trt.__version__} cannot parse it: {'; '.join(reasons)}")
    if network.num_inputs < 1:  # an empty file parses too
        raise RequestError(f"{path}: a graph without an input; it is cut short or no model of rsedge, get it again")


def precision_flags(trt: Any, how: str, precision: str) -> list[api.BuilderFlag]:
    """Builder flags where they decide, as ``trtexec --fp16 --int8`` sets them: fp16 where it is faster, int8 where the
    graph has Q/DQ."""
    names = {"f32": (), "fp16": ("FP16",), "int8": ("FP16", "INT8")}[precision] if how == "builder_flags" else ()
    return [builder_flag(trt, name) for name in names]


def _set_profile(
    trt: Any,
    builder: api.Builder,
    network: api.INetworkDefinition,
    config: api.IBuilderConfig,
    max_batch: int,
    path: Model,
) -> None:
    """The range of batch sizes; tuned for the largest, which is what streaming a scene uses."""
    entry = network.get_input(0)
    shape = sizes(entry.shape)
    if shape[0] != -1:
        if max_batch > 1:
            raise RequestError(
                f"{path}: has a fixed batch of one; export it with max_batch {max_batch} (recipe: tensorrt)"
            )
        return
    profile = builder.create_optimization_profile()
    least, most = trt.Dims((1, *shape[1:])), trt.Dims((max_batch, *shape[1:]))
    profile.set_shape(entry.name, least, most, most)
    config.add_optimization_profile(profile)


def _set_timing(trt: Any, config: api.IBuilderConfig, timing: bytes) -> None:
    cache = config.create_timing_cache(timing)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise MissingCapability(
            f"{trt.__name__} {trt.__version__} refuses the timing cache; measure anew: rsedge build BUNDLE --rebuild"
        )
