"""The stages after training: export, quantize, verify every artefact on its own executable, write bundles."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.cache.run_folder import RunFolder
from rsedge.cache.stage import Results, StageContext
from rsedge.data.errors import GateFailed, MissingCapability, RequestError
from rsedge.data.files import replace_folder, sha256_of
from rsedge.data.metric_table import step_scores
from rsedge.data.temporary import TemporaryFolder
from rsedge.data.verdict import Verdict
from rsedge.devices.dla import check_dla, expected_placement
from rsedge.devices.layers import profile_model
from rsedge.devices.measure import Measurement, measure_interleaved
from rsedge.devices.predict import predict_target
from rsedge.devices.profile import load_profile
from rsedge.devices.rss import peak_rss
from rsedge.export.bundle import write_bundle
from rsedge.export.graph import Deployable
from rsedge.export.myriad import MyriadArtefact, check_release, export_myriad
from rsedge.export.onnx import OnnxArtefact, export_onnx
from rsedge.export.openvino import export_openvino
from rsedge.export.parity import parity
from rsedge.export.signing import load_key, load_or_create_key, write_public
from rsedge.export.tensorrt import TensorRtArtefact, check_typed, compiles, opset_for, type_for_tensorrt
from rsedge.recipe.checks import measured_here
from rsedge.recipe.reading import resolved
from rsedge.recipe.schema import Recipe, parse_target
from rsedge.results.records import (
    BundleCheck,
    Bundles,
    Captions,
    Export,
    Language,
    Layers,
    Predicted,
    Quantize,
    TargetFigures,
    TypedOnnx,
    Verify,
)
from rsedge.runtimes.bundle import Bundle, runtime_device
from rsedge.runtimes.manifest import LanguageRecord, Runtime, Target
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.openvino2022 import OpenVino2022Session
from rsedge.runtimes.session import INPUT, Session
from rsedge.stages.shown import SHOWN, shown
from rsedge.stages.train import Workshop
from rsedge.tasks.base import Kept

MEASURE_SECONDS = 4.0
TRIAL_SECONDS = 0.2
PROFILE_RUNS = 10
MEMORY_READINGS = 3
SAMPLE_TILES = 4
Tile = npt.NDArray[np.generic]


def sample_tiles(shop: Workshop, count: int = SAMPLE_TILES) -> list[Tile]:
    """A few of the inputs of selection, each (1, *spec.shape), for parity, timing and golden vectors."""
    return [one[None] for one in shop.selection.inputs[:count]]


def tensorrt_settings(target: Target) -> tuple[str, int]:
    """TensorRT version and ONNX opset for a target, from its device's profile.

    Raises:
        MissingCapability: the profile names no TensorRT release.
    """
    software = load_profile(target.device).software_for("tensorrt")
    if software is None:
        raise MissingCapability(f"target '{target.name}': the profile of '{target.device}' names no TensorRT release")
    version = software.runtime_version
    return version, opset_for(target.precision, version, software.opset, software.max_opset)  # type: ignore[arg-type]


def export_stage(context: StageContext, shop: Workshop, student: str) -> Export:
    """Writes ``student-f32.onnx``, ``student-f32.xml``, for TensorRT ``<target>/model.onnx`` and for the Myriad
    ``<target>/model.xml``; checks parity.

    Raises:
        GateFailed: torch, ONNX Runtime and OpenVINO disagree at f32, or OpenVINO 2022.3 beyond fp16.
    """
    graph = Deployable(shop.student(student), shop.spec, shop.task.output)
    onnx = export_onnx(graph, shop.spec, shop.classes, context.folder / "student-f32.onnx")
    ir = export_openvino(onnx.path, context.folder / "student-f32.xml", shop.spec, shop.classes)
    found = parity(graph, onnx.path, ir.xml, sample_tiles(shop), shop.threads)
    if not found["passed"]:
        gaps = ", ".join(f"{r} {found[r]['max_abs']:.2g}" for r in ("onnxruntime", "openvino"))
        raise GateFailed(f"export: runtimes disagree with torch at f32 (largest difference of logits: {gaps})")
    sizes = {"onnx": onnx.size_bytes, "openvino": ir.size_bytes}
    typed, myriad = {}, {}
    for target in shop.recipe.parsed_targets:
        if target.runtime == "tensorrt" and target.precision != "int8":
            typed[target.name] = _typed(context, shop, graph, target)
        elif is_myriad(target):
            myriad[target.name] = _myriad(context, shop, graph, target)
    if any(t.precision == "fp16" and t.runtime == "openvino" and not is_myriad(t) for t in shop.recipe.parsed_targets):
        half = export_openvino(onnx.path, context.folder / "student-fp16.xml", shop.spec, shop.classes, True)
        sizes["openvino-fp16"] = half.size_bytes
    return Export(parity=found, sizes=sizes, tensorrt=typed, myriad=myriad)


def check_dla_student(shop: Workshop) -> None:
    """Holds the untrained student against the DLA of every TensorRT target, before any work.

    Raises:
        RequestError: a student with attention or with operations that the DLA does not have; says what would be possible.
    """
    targets = [t for t in shop.recipe.parsed_targets if t.runtime == "tensorrt"]
    if shop.recipe.tensorrt.dla is None or not targets:
        return
    graph = Deployable(shop.build()[0].eval(), shop.spec, shop.task.output)
    with TemporaryFolder() as folder:
        path = export_onnx(graph, shop.spec, shop.classes, folder / "student.onnx", input_dtype="float32").path
        for target in targets:
            try:
                check_dla(load_profile(target.device), target.precision, onnx_path=path)
            except RequestError as error:
                words = str(error).replace(str(path), f"student '{shop.student_name}'")
                raise RequestError(f"tensorrt.dla: {target.name}: {words}") from error


def is_myriad(target: Target) -> bool:
    """Whether the target is a VPU, which only OpenVINO 2022.3 knows."""
    return runtime_device(target.runtime, target.device) == "MYRIAD"


def _myriad(context: StageContext, shop: Workshop, graph: Deployable, target: Target) -> dict[str, Any]:
    """The IR that OpenVINO 2022.3.2 makes of the student, with its differences from f32."""
    software = load_profile(target.device).software_for("openvino")
    if software is None:
        raise MissingCapability(f"target '{target.name}': the profile of '{target.device}' names no OpenVINO release")
    check_release(target.name, software.runtime_version)
    with TemporaryFolder(context.folder) as folder:
        source = export_onnx(graph, shop.spec, shop.classes, folder / "f32.onnx", software.opset, "float32").path
        xml = context.folder / target.name / "model.xml"
        made = export_myriad(source, xml, shop.spec, shop.classes, sample_tiles(shop), shop.threads)
    if not made.passed:
        raise GateFailed(
            f"export: {target.name}: OpenVINO {software.runtime_version} is off by {made.weights_fp16['max_abs']:.2g} in "
            "its logits, more than fp16 weights explain"
        )
    return made.record()


def restore_myriad(folder: Path, record: Mapping[str, Any]) -> MyriadArtefact:
    """The artefact that :func:`_myriad` described, with its files in ``folder``."""
    return MyriadArtefact(**(dict(record) | {"xml": folder / record["xml"], "bin": folder / record["bin"]}))


def _typed(context: StageContext, shop: Workshop, graph: Deployable, target: Target) -> TypedOnnx:
    version, opset = tensorrt_settings(target)
    with TemporaryFolder(context.folder) as folder:
        source = export_onnx(graph, shop.spec, shop.classes, folder / "f32.onnx", opset, "float32").path
        return typed_record(source, context.folder / target.name / "model.onnx", target, version, source, shop)


def typed_record(source: Path, path: Path, target: Target, version: str, reference: Path, shop: Workshop) -> TypedOnnx:
    """Types an ONNX file for TensorRT, holds it against the f32 one and compiles it where that can be done here."""
    batch = shop.recipe.tensorrt.max_batch
    dla = shop.recipe.tensorrt.dla
    made = type_for_tensorrt(source, path, target.precision, version, batch, dla)  # type: ignore[arg-type]
    if dla is not None:
        check_dla(load_profile(target.device), target.precision, onnx_path=source)
        made = dataclasses.replace(made, dla={"core": dla, "expected": expected_placement(source)})
    record = dataclasses.asdict(made)
    record["onnx"]["path"] = f"{target.name}/{path.name}"
    samples = [t.astype(np.float32) for t in sample_tiles(shop)]
    try:
        gate = compiles(path, max_batch=batch)
    except MissingCapability as error:
        gate = {"ok": None, "message": str(error)}
    parity = check_typed(reference, path, samples, shop.threads, shop.task.output == "tokens")
    return TypedOnnx(artefact=record, parity=parity, compile_gate=gate)


def restore_typed(folder: Path, record: TypedOnnx) -> TensorRtArtefact:
    """The artefact that :func:`typed_record` described, with its file under ``folder``."""
    values = dict(record.artefact)
    onnx = dict(values.pop("onnx"))
    return TensorRtArtefact(onnx=OnnxArtefact(**(onnx | {"path": folder / onnx["path"]})), **values)


@dataclasses.dataclass(frozen=True)
class Artefact:
    """Where a target's model lies and which runtime can run its numbers on this machine."""

    target: Target
    path: Path
    files: tuple[Path, ...]
    runs_on: str

    @property
    def size_bytes(self) -> int:
        return sum(f.stat().st_size for f in self.files)


def find_artefact(shop: Workshop, target: Target) -> Artefact:
    """The model file of a target among the outputs of export and quantize."""
    made = "quantize" if target.precision == "int8" else "export"
    folder = shop.folders[made]
    if target.runtime == "tensorrt":
        path = folder / target.name / "model.onnx"
        return Artefact(target, path, (path,), "onnxruntime")
    if is_myriad(target):
        path = folder / target.name / "model.xml"
        return Artefact(target, path, (path, path.with_suffix(".bin")), "openvino")
    stem = {"int8": "student-int8", "fp16": "student-fp16"}.get(target.precision, "student-f32")
    if target.runtime == "onnxruntime":
        path = folder / f"{stem}.onnx"
        return Artefact(target, path, (path,), "onnxruntime")
    path = folder / f"{stem}.xml"
    return Artefact(target, path, (path, path.with_suffix(".bin")), "openvino")


def open_artefact(artefact: Artefact, shop: Workshop) -> Session:
    """The executable that stands for the target here: its own on this CPU, else the same file on the CPU."""
    if is_myriad(artefact.target):
        return OpenVino2022Session(artefact.path, shop.spec, "CPU", artefact.target.precision, shop.threads)
    precision = artefact.target.precision if measured_here(artefact.target) else _stand_in_precision(artefact.target)
    as_written = artefact.target.runtime == "tensorrt"
    return open_session(
        artefact.path, artefact.runs_on, precision=precision, threads=shop.threads, as_written=as_written
    )


def _stand_in_precision(target: Target) -> str:
    return "int8" if target.precision == "int8" else "f32"


def verify_stage(context: StageContext, shop: Workshop) -> Verify:
    """Metrics, agreement, latency, memory and size of every target and of the teacher's baselines, on the test set.

    What the report shows of the test set goes into :data:`~rsedge.stages.shown.SHOWN`.

    Latencies are taken interleaved in one run, so that their ratios are fair; targets that are not this machine get a
    predicted interval.
    """
    targets: dict[str, TargetFigures] = {}
    steps: dict[str, dict[str, Any]] = {}
    np.savez_compressed(
        context.folder / SHOWN, allow_pickle=False, **shown(shop.task, shop.test, shop.teacher_on(shop.test))
    )
    with contextlib.ExitStack() as stack:
        runners: dict[str, Session] = {}
        trained = [s for s in ("distill", "prune") if s in shop.folders]
        for stage in trained:
            # The last one's is what the export stage wrote.
            exported = shop.folders["export"] / "student-f32.xml"
            path = exported if stage == trained[-1] else _step_file(context, shop, stage)
            session = open_session(path, "openvino", precision="f32", threads=shop.threads)
            runners[f"step-{stage}"] = stack.enter_context(contextlib.closing(session))
            steps[stage] = _step_figures(session, path, shop)
        for name, precision in (("teacher-openvino-f32", "f32"), ("teacher-openvino-int8", "int8")):
            path = shop.folders["teacher"] / f"teacher-{precision}.xml"
            if path.is_file():
                session = open_session(path, "openvino", precision=precision, threads=shop.threads)
                runners[name] = stack.enter_context(contextlib.closing(session))
        for target in shop.recipe.parsed_targets:
            artefact = find_artefact(shop, target)
            shop.reporter.step("verify", len(targets), len(shop.recipe.targets), target.name)
            session = stack.enter_context(contextlib.closing(open_artefact(artefact, shop)))
            kept, targets[target.name] = _found(session, artefact, shop)
            np.savez_compressed(context.folder / f"{target.name}.npz", kept=kept)
            if measured_here(target):
                runners[target.name] = session
        timed = _measured(runners, shop)
    measured = {
        name: record if name.startswith("step-") else _weighed(name, record, shop) for name, record in timed.items()
    }
    layers = [_layers(name, shop) for name in _profiled(measured, shop)]
    return Verify(targets=targets, steps=steps, measurements=measured, layers=layers)


def weighed(recipe: Recipe) -> list[str]:
    """Targets whose memory a gate judges."""
    return [name for name in recipe.targets if any(g.metric == "memory" for g in recipe.gates_for(name))]


def _weighed(name: str, record: Measurement, shop: Workshop) -> Measurement:
    """The measurement with the memory of a fresh process, of several where a gate judges it."""
    path, precision = _measured_file(name, shop)
    runtime = "onnxruntime" if path.suffix == ".onnx" else "openvino"
    readings = [
        peak_rss(path, runtime, precision=precision, threads=shop.threads)
        for _ in range(MEMORY_READINGS if name in weighed(shop.recipe) else 1)
    ]
    return record.model_copy(
        update={"peak_rss_bytes": round(statistics.median(readings)), "peak_rss_readings": readings}
    )


def _profiled(measured: Mapping[str, Measurement], shop: Workshop) -> list[str]:
    """What is profiled: the fastest delivered artefact that runs here, and the teacher as it is."""
    here = [t.name for t in shop.recipe.parsed_targets if t.name in measured]
    fastest = sorted(here, key=lambda name: measured[name].latency_ms.p50)[:1]
    return [*fastest, *(n for n in ("teacher-openvino-f32",) if n in measured)]


def _layers(name: str, shop: Workshop) -> Layers:
    path, precision = _measured_file(name, shop)
    runtime: Runtime = "onnxruntime" if path.suffix == ".onnx" else "openvino"
    tile = sample_tiles(shop, 1)[0]
    rows = profile_model(path, runtime, tile, precision=precision, threads=shop.threads, runs=PROFILE_RUNS)
    return Layers(
        name=name,
        runtime=runtime,
        device="cpu",
        precision=precision,
        threads=shop.threads,
        runs=PROFILE_RUNS,
        layers=rows,
    )


def _step_file(context: StageContext, shop: Workshop, stage: str) -> Path:
    """The student as a training stage left it, as f32 IR: what that step alone brought."""
    with TemporaryFolder(context.folder) as folder:
        graph = Deployable(shop.student(stage), shop.spec, shop.task.output)
        onnx = export_onnx(graph, shop.spec, shop.classes, folder / "student.onnx")
        return export_openvino(onnx.path, context.folder / f"{stage}-f32.xml", shop.spec, shop.classes).xml


def _step_figures(session: Session, path: Path, shop: Workshop) -> dict[str, Any]:
    test, taught = shop.test, shop.teacher_on(shop.test)
    kept = shop.task.run(session, test.inputs)
    found = test.metrics(kept, taught)
    return {k: found[k] for k in step_scores() if k in found} | {
        "agreement": test.agreement(kept, taught),
        "size_bytes": path.stat().st_size + path.with_suffix(".bin").stat().st_size,
    }


def _found(session: Session, artefact: Artefact, shop: Workshop) -> tuple[Kept, TargetFigures]:
    target = artefact.target
    test, taught = shop.test, shop.teacher_on(shop.test)
    dn = test.inputs
    if target.runtime == "tensorrt":
        dn = dn.astype(np.float32)
    kept, here = shop.task.run(session, dn), measured_here(target)
    interval, unavailable = (None, None) if here else _predicted(shop, target)
    return kept, TargetFigures(
        metrics=test.metrics(kept, taught), agreement=test.agreement(kept, taught), evidence=test.evidence(kept, taught),
        size_bytes=artefact.size_bytes, numerics="this machine, its own executable" if here else _numerics_note(target),
        interval=interval, unavailable=unavailable,
    )  # fmt: skip


def _numerics_note(target: Target) -> str:
    if target.runtime == "tensorrt":
        return "typed ONNX as written on ONNX Runtime's CPU, not on the device"
    if is_myriad(target):
        return "IR of OpenVINO 2022.3.2 on that release's CPU plugin (fp16 weights, f32 arithmetic), not on the VPU"
    return "same file on this machine's CPU, not on the device"


def _predicted(shop: Workshop, target: Target) -> tuple[Predicted | None, str | None]:
    path = shop.folders["export"] / "student-f32.onnx"
    try:
        found = predict_target(path, target.name)
    except MissingCapability as error:
        return None, str(error)
    return Predicted(low_ms=found.low_ms, mid_ms=found.mid_ms, high_ms=found.high_ms, basis=found.basis), None


def _measured(runners: Mapping[str, Session], shop: Workshop) -> dict[str, Measurement]:
    if not runners:
        return {}

    def told(_runs: int, share: float) -> None:
        shop.reporter.step("latency, interleaved", round(share * 100), 101)

    inputs = {INPUT: sample_tiles(shop, 1)[0]}
    seconds = TRIAL_SECONDS if shop.trial else MEASURE_SECONDS
    found = measure_interleaved(runners, inputs, seconds=seconds, threads=shop.threads, progress=told)
    shop.reporter.clear()
    return found


def _measured_file(name: str, shop: Workshop) -> tuple[Path, str]:
    if name.startswith("teacher-"):
        precision = name.rpartition("-")[2]
        return shop.folders["teacher"] / f"teacher-{precision}.xml", precision
    target = parse_target(name)
    return find_artefact(shop, target).path, target.precision


def bundle_stage(
    context: StageContext,
    shop: Workshop,
    run: RunFolder,
    results: Results,
    verdicts: Mapping[str, Verdict],
) -> Bundles:
    """Writes one signed bundle per target, with what became of its gates, and checks each as a device would.

    Raises:
        GateFailed: a bundle does not give its own golden vector on this machine.
    """
    recipe = shop.recipe
    key = load_key(recipe.signing.key) if recipe.signing.key else load_or_create_key(run.keys / "signing.pem")
    public = write_public(key, run.keys / "signing.pub")
    verify = results.of(Verify)
    checks: dict[str, BundleCheck] = {}
    for target in recipe.parsed_targets:
        artefact = find_artefact(shop, target)
        typed, vpu = None, None
        if is_myriad(target):
            vpu = restore_myriad(artefact.path.parent, results.of(Export).myriad[target.name])
        elif target.runtime == "tensorrt":
            made: Quantize | Export = results.of(Quantize) if target.precision == "int8" else results.of(Export)
            typed = restore_typed(shop.folders[made.stage], made.tensorrt[target.name])
        found = verify.targets[target.name]
        spoken = _spoken(shop, target, results)
        folder = write_bundle(
            context.folder / target.name,
            name=recipe.name, classes=shop.classes, target=target, input_spec=shop.spec,
            model_files={_inside(f, typed is not None): f for f in artefact.files} | spoken.files,
            golden_dn=sample_tiles(shop, 2), task=shop.teacher.spec.task,
            boxes=recipe.boxes if shop.task.kind == "boxes" else None, language=spoken.record,
            metrics=found.metrics | spoken.metrics | {"agreement": found.agreement},
            latency=_latency_note(verify, target), verdict=verdicts[target.name],
            tensorrt=typed, myriad=vpu, teacher=recipe.teacher.name,
            recipe_sha256=sha256_of(resolved(recipe)), signing_key=key,
        )  # fmt: skip
        checks[target.name] = _check_bundle(folder, public, target, shop)
    return Bundles(checks=checks, verdicts=dict(verdicts))


@dataclasses.dataclass(frozen=True)
class _Spoken:
    """What a captioning bundle holds beside its tower."""

    files: dict[str, Path] = dataclasses.field(default_factory=dict)
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    record: LanguageRecord | None = None


def _spoken(shop: Workshop, target: Target, results: Results) -> _Spoken:
    captions = results.maybe(Captions)
    if captions is None:
        return _Spoken()
    from rsedge.stages.captions import language_files

    record = results.of(Language).record
    files = language_files(shop, target, record)
    return _Spoken(files, captions.targets[target.name].metrics, record if files else None)


def _inside(path: Path, tensorrt: bool) -> str:
    return "model.onnx" if tensorrt else f"model{path.suffix}"


def _latency_note(verify: Verify, target: Target) -> dict[str, Any] | None:
    record = verify.measurements.get(target.name)
    if record is not None:
        measured = record.model_copy(update={"samples_ms": [], "turns_ms": []})
        return measured.model_dump(mode="json")
    interval = verify.targets[target.name].interval
    return None if interval is None else {"provenance": "predicted", **interval.model_dump()}


def _check_bundle(folder: Path, public: Path, target: Target, shop: Workshop) -> BundleCheck:
    with Bundle.open(folder, key=public) as bundle:
        if is_myriad(target):
            result = bundle.verify(shop.threads, "CPU")
        elif not measured_here(target):
            return BundleCheck(golden=None, note="the golden vector is checked on the device, by rsedge verify")
        else:
            result = bundle.verify(shop.threads)
    if not result.passed:
        raise GateFailed(f"bundle {target.name}: its own golden vector is missed by {result.max_abs_difference:.3g}")
    note = "checked on the CPU plugin of OpenVINO 2022.3.2, not on the VPU" if is_myriad(target) else None
    return BundleCheck(golden=result.as_dict(), note=note)


def publish(made: Path, run: RunFolder, targets: Sequence[str]) -> None:
    """Brings ``bundles/`` in line with the stage's folder; bundles of targets that are gone are removed."""
    run.bundles.mkdir(exist_ok=True)
    for old in run.bundles.iterdir():
        if old.name not in targets and (old / "manifest.json").is_file():
            shutil.rmtree(old)
    for name in targets:
        source, final = made / name, run.bundles / name
        if final.is_dir() and _same(source, final):
            continue
        with TemporaryFolder(run.bundles) as temporary:
            replace_folder(Path(shutil.copytree(source, temporary / name)), final)


def _same(first: Path, second: Path) -> bool:
    names = [{p.relative_to(f).as_posix() for p in f.rglob("*") if p.is_file()} for f in (first, second)]
    return names[0] == names[1] and all((first / n).read_bytes() == (second / n).read_bytes() for n in names[0])
