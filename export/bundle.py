"""Writing a bundle: everything one target needs, hashed, signed, with a golden vector from the executable itself."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.files import atomic_path, make_folder, no_room, replace_folder, sha256_file, write_json, writing
from rsedge.data.metrics.verdict import Verdict
from rsedge.data.record import validated
from rsedge.data.temporary import TemporaryFolder
from rsedge.export.parity import Outputs, run_session
from rsedge.export.signing import public_pem, sign
from rsedge.runtimes.bundle.manifest import (
    MANIFEST,
    PUBLIC_KEY,
    SIGNATURE,
    BoxSettings,
    FileEntry,
    Golden,
    LanguageRecord,
    Manifest,
    Target,
)
from rsedge.runtimes.opening import open_stand_in
from rsedge.runtimes.session import INPUT, LOGITS, VALID, Array, Session

GOLDEN, README = "golden.npz", "README.txt"
BUILD_SCRIPT, BUILD_RECORD = "build.sh", "build.json"
SAMPLES_USE = "rsedge infer . samples.npz --output answers.csv    (an array 'dn', one sample after the other)"
NO_CLASSES = ("embedding", "features", "regression", "captioning", "super-resolution")
"""Tasks whose largest output means nothing: only differences are held."""
_TOOLS = (
    "rsedge",
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "ai-edge-litert",
    "litert-torch",
    "ai-edge-quantizer",
    "tensorrt-rtx",
    "numpy",
)

SessionFactory = Callable[[Path], Session]


class BuildFiles(Protocol):
    """What a bundle says to those who build on the device: ``build.json`` and ``build.sh``; ``model`` is the file that it names."""

    @property
    def precision(self) -> str: ...

    @property
    def model(self) -> str: ...

    def build_record(self) -> dict[str, Any]: ...

    def build_script(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class About:
    """What a manifest says of a model, whatever it runs on.

    Attributes:
        classes: names of the outputs.
        task: what the teacher does, by the names of :data:`rsedge.models.zoo.Task`.
        boxes: how candidates become boxes; for detectors.
        finer: how many times finer the output's grid is than the input's; for images.
        stride: how many pixels of the input are one place of the output along an axis; for maps of features.
        metrics, latency: what was found on the target.
        verdict: what became of the recipe's gates for the target.
        language: how the language model is asked whose files are among the bundle's, under its folder.
    """

    name: str
    classes: tuple[str, ...]
    task: str = "segmentation"
    boxes: BoxSettings | None = None
    finer: int | None = None
    stride: int | None = None
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    latency: Mapping[str, Any] | None = None
    verdict: Verdict | None = None
    language: LanguageRecord | None = None
    teacher: str | None = None
    recipe_sha256: str | None = None

    def manifest(self, where: Path, **more: Any) -> Manifest:
        """With what is known of the files."""
        made = {"tool_versions": tool_versions(), "created": _now()}
        return validated(Manifest, vars(self) | made | more, where)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def write_bundle(
    folder: str | Path,
    about: About,
    *,
    target: str | Target,
    input_spec: InputSpec,
    model_files: Mapping[str, str | Path],
    golden_dn: Sequence[Array],
    golden: Outputs | None = None,
    session_factory: SessionFactory | None = None,
    build: BuildFiles | None = None,
    signing_key: Ed25519PrivateKey | None = None,
) -> Path:
    """Writes a bundle folder; it appears whole or not at all, and an older one there is replaced.

    Args:
        target: ``<runtime>-<device>-<precision>``.
        model_files: name in the bundle -> file on this disk; the first is what the runtime opens (``.xml``, ``.onnx``).
        golden_dn: tiles ``(1, C, T, T)`` in the contract's dtype, at least one, best from real imagery.
        golden: their outputs, where nothing on this machine gives them; None runs the target's executable here, or what stands in
            for it (:meth:`rsedge.runtimes.backend.RuntimeBackend.golden`).
        session_factory: opens the executable from the bundle's model path; None: ``open_session`` for the target.
        build: what is built on the device; needed where the target's runtime ships it.
        signing_key: signs the manifest; None leaves the bundle unsigned.

    Raises:
        RequestError: contents that do not fit together.
        MissingCapability: the target cannot run here and no ``golden`` is given, or the disk is full.
    """
    folder = Path(folder)
    parsed = target if isinstance(target, Target) else Target.parse(target)
    _check_contents(parsed, model_files, golden_dn, input_spec, build)
    with appearing(folder) as made:
        for inside, source in model_files.items():
            copy_model(Path(source), made / inside)
        if build is not None:
            _write_build(made, build)
        main = next(iter(model_files))
        outputs = golden or _run(made / main, parsed, input_spec, golden_dn, session_factory)
        _write_golden(made / GOLDEN, golden_dn, outputs)
        (made / README).write_text(_readme(about, parsed, input_spec), encoding="utf-8")
        written = {
            "target": parsed,
            "input_spec": input_spec,
            "model_file": main,
            "build": None if build is None else build.build_record(),
            "files": entries(made),
            "golden": golden_record(parsed.backend.tolerance(parsed.precision), outputs, about.task),
        }
        write_manifest(made, about.manifest(folder, **written), signing_key)
    return folder


def write_manifest(made: Path, manifest: Manifest, key: Ed25519PrivateKey | None) -> None:
    """``manifest.json`` and its signature."""
    content = manifest.to_bytes()
    (made / MANIFEST).write_bytes(content)
    if key is not None:
        (made / SIGNATURE).write_bytes(sign(key, content))
        (made / PUBLIC_KEY).write_bytes(public_pem(key))


def zip_bundle(folder: str | Path, path: str | Path) -> Path:
    """Packs a bundle folder into one ``.zip``, written atomically; the same folder gives the same bytes."""
    folder, path = Path(folder), Path(path)
    if not (folder / MANIFEST).is_file():
        raise RequestError(f"{folder}: no {MANIFEST} in it, so it is no rsedge bundle")
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            info = zipfile.ZipInfo(file.relative_to(folder).as_posix(), date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (file.stat().st_mode & 0o777 | 0o100000) << 16
            with file.open("rb") as source, archive.open(info, "w", force_zip64=True) as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    return path


def tool_versions() -> dict[str, str]:
    """Versions of what made the bundle, as far as installed."""
    versions = {}
    for tool in _TOOLS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[tool] = importlib.metadata.version(tool)
    return versions


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Yields a folder beside ``folder`` that takes its name only when the block succeeds."""
    with writing(folder):
        make_folder(folder.parent)
        temporary = TemporaryFolder(folder.parent)
    with temporary as inside:
        made = inside / folder.name
        made.mkdir()
        try:
            yield made
            if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
                raise RequestError(f"{folder}: is there already and is no bundle; choose another folder")
            replace_folder(made, folder)
        except OSError as error:
            if (full := no_room(folder, error)) is None:
                raise
            raise full from error


def _check_contents(
    target: Target,
    model_files: Mapping[str, str | Path],
    golden_dn: Sequence[Array],
    spec: InputSpec,
    build: BuildFiles | None,
) -> None:
    if not model_files:
        raise RequestError(f"{target.name}: a bundle needs at least one model file")
    if not golden_dn:
        raise RequestError(f"{target.name}: a bundle needs at least one golden tile")
    shape = (1, *spec.shape)
    for dn in golden_dn:
        if dn.shape != shape or dn.dtype != np.dtype(spec.dtype):
            raise RequestError(f"{target.name}: golden tiles must be {spec.dtype} {shape}, got {dn.dtype} {dn.shape}")
    ships = target.backend.ships_build
    if ships != (build is not None):
        needs = "needs what is built on the device" if ships else "has nothing that is built on the device"
        raise RequestError(f"{target.name}: a bundle for {target.backend.title} {needs} (build)")
    if build is not None and (build.precision, build.model) != (target.precision, main := next(iter(model_files))):
        raise RequestError(
            f"{target.name}: needs {target.precision} as '{build.model}', got {build.precision} as '{main}'"
        )


def copy_model(source: Path, target: Path) -> None:
    """Copies a model file into a bundle.

    Raises:
        RequestError: there is none.
    """
    if not source.is_file():
        raise RequestError(f"{source}: no such model file")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write_build(made: Path, artefact: BuildFiles) -> None:
    write_json(made / BUILD_RECORD, artefact.build_record())
    script = made / BUILD_SCRIPT
    script.write_text(artefact.build_script(), encoding="utf-8")
    script.chmod(0o755)


def _run(
    model: Path, target: Target, spec: InputSpec, golden_dn: Sequence[Array], factory: SessionFactory | None
) -> Outputs:
    """Outputs of the actual executable; where its device is not here, of what its backend says stands in: for TensorRT the typed
    ONNX on ONNX Runtime, for a VPU its release's CPU plugin, for an NPU the same file on this CPU."""
    stand_in = target.backend.golden(target.device, target.precision)
    session = open_stand_in(model, stand_in, spec) if factory is None else factory(model)
    with contextlib.closing(session):
        return run_session(session, golden_dn)


def _write_golden(path: Path, golden_dn: Sequence[Array], outputs: Outputs) -> None:
    if len(outputs.logits) != len(golden_dn) or not np.isfinite(outputs.logits).all():
        raise RequestError(f"{path.name}: the golden logits are not finite, or not one per tile")
    arrays = {INPUT: np.concatenate(list(golden_dn)), LOGITS: outputs.logits, VALID: outputs.valid}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def golden_record(tolerance: tuple[float, float], outputs: Outputs, task: str) -> Golden:
    """How far a device's answers may lie from ``outputs``.

    Args:
        tolerance: as a backend gives it (:meth:`rsedge.runtimes.backend.RuntimeBackend.tolerance`).
    """
    share, agreement = tolerance
    largest = float(np.abs(outputs.logits).max())
    if task == "detection":
        return Golden(file=GOLDEN, atol=share, agreement_min=agreement)
    if task in NO_CLASSES:
        return Golden(file=GOLDEN, atol=share * largest, agreement_min=0.0)
    return Golden(file=GOLDEN, atol=share * max(1.0, largest), agreement_min=agreement)


def entries(made: Path) -> dict[str, FileEntry]:
    """Every file in a folder, as a manifest lists it."""
    files = sorted(p for p in made.rglob("*") if p.is_file())
    return {p.relative_to(made).as_posix(): FileEntry(sha256=sha256_file(p), bytes=p.stat().st_size) for p in files}


def _readme(about: About, target: Target, spec: InputSpec) -> str:
    task, classes = about.task, about.classes
    bands = "\n".join(
        f"  {i}. {b.name}: value = DN * {b.scale:g} + {b.offset:g}"
        + (f", nodata DN {b.nodata:g}" if b.nodata is not None else "")
        for i, b in enumerate(spec.bands, 1)
    )
    numbered = f"{len(classes)} numbers" if task in NO_CLASSES else ", ".join(f"{i} {c}" for i, c in enumerate(classes))
    missing = " (255 = nodata)" if task == "segmentation" else ""
    origin = f"\nDistilled from: {about.teacher}" if about.teacher else ""
    return f"""{about.name}: {task} for {target.name}
Gives: {numbered}{missing}{origin}

{_readme_build(target)}Is it whole, from us, and does it give the right numbers on this device?
  rsedge verify . --key PUBLIC_KEY.pem
(take the public key from us, not from this folder: signing.pub here is for convenience and proves nothing)

Use it:
  {_readme_use(task, spec)}

Input: {spec.dtype} digital numbers as the sensor gives them ({spec.quantity} after scaling), one input of shape
{spec.shape} ({spec.layout}) at a time; scaling, normalisation and the nodata mask are inside the model. Bands, matched by name:
{bands}
"""


def _readme_use(task: str, spec: InputSpec) -> str:
    if task == "segmentation":
        return "rsedge infer . scene.tif --output classes.tif"
    if task == "super-resolution":
        return "rsedge infer . scene.tif --output finer.tif"
    if task == "features":
        return (
            "rsedge infer . scene.tif --output features.tif\nor, with heads fitted on what it gives (rsedge head):\n"
            "  rsedge infer . scene.tif --output map.tif --heads water.head,cloud.head    (map.water.tif, map.cloud.tif)"
        )
    if task == "captioning":
        return (
            "rsedge infer . picture.png --output caption.txt\n(where there is a folder language/, which OpenVINO GenAI's "
            "VLMPipeline opens too; else this is the vision tower\nalone: its image tokens go to a language model elsewhere)"
        )
    if task == "detection":
        return "rsedge infer . scene.tif --output boxes.geojson"
    if spec.layout == "CHW":
        return (
            "rsedge infer . scene.tif --output chips.tif    (one pixel per chip), or as for samples:\n  " + SAMPLES_USE
        )
    return SAMPLES_USE


def _readme_build(target: Target) -> str:
    """What there is to do before the bundle runs."""
    return target.backend.readme
