"""The flying commands as a user meets them: exit codes, one JSON object, messages that name the fix."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rsedge.cli.bench import _print_record
from rsedge.data.metrics.verdict import Gate, Verdict
from rsedge.export.signing import write_public
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return tiny.write_scene(tmp_path / "scene.tif", tiny.random_scene(SPEC, 70, 80), tiny.NAMES)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    logits, valid = tiny.reference(SPEC, tiny.random_scene(SPEC, 70, 80))
    truth = np.where(valid, logits.argmax(0), 255).astype(np.uint8)
    return tiny.write_scene(tmp_path / "labels.tif", truth[None], None)


def test_infer(cli: Callable, bundle: Callable, scene: Path, tmp_path: Path) -> None:
    out, shares = tmp_path / "o.tif", tmp_path / "p.tif"
    code, text, _ = cli("infer", bundle(), scene, "--output", out, "--probabilities", shares, "--overlap", 8)
    assert code == 0 and "cloud" in text and "megapixels/s" in text
    with rasterio.open(out) as file:
        assert file.crs.to_epsg() == 32632 and set(np.unique(file.read(1))) <= {0, 1, 2, 255}
    code, text, errors = cli("infer", bundle(), scene, "--output", out, "--threads", 1, "--json")
    record = json.loads(text)
    assert code == 0 and record["output"] == str(out) and record["nodata_pixels"] == 6 and not errors


def test_infer_from_a_signed_zip_with_named_bands(cli: Callable, own_bundle: Callable, tmp_path: Path) -> None:
    folder = own_bundle()
    tiny.sign(folder, Ed25519PrivateKey.generate())
    archive = shutil.make_archive(str(tmp_path / "b"), "zip", folder)
    values = (tiny.random_scene(SPEC, 40, 40) * 1e-4).astype(np.float32)
    unnamed = tiny.write_scene(tmp_path / "u.tif", values[::-1], None)
    arguments = ("infer", archive, unnamed, "-o", tmp_path / "o.tif", "--key", folder / "signing.pub")
    assert cli(*arguments)[0] == 2
    code, text, _ = cli(*arguments, "--bands", "nir, red, green, blue", "--json")
    assert code == 0 and json.loads(text)["signature"] == "trusted"


def test_a_scene_of_another_sensor_is_warned_of(
    cli: Callable, bundle: Callable, scene: Path, labels: Path, tmp_path: Path
) -> None:
    said = "is of landsat-8, but the model's bands are those of sentinel-2"
    for command in (("infer", bundle(), scene, "-o", tmp_path / "o.tif"), ("evaluate", bundle(), scene, labels)):
        code, _, errors = cli(*command, "--sensor", "landsat-8")
        assert code == 0 and said in errors
        assert said not in cli(*command)[2]


def judged(*gates: tuple[float, tuple[float, float]]) -> Verdict:
    """A verdict of kappa gates with a limit of 0.04, each (drop, its interval)."""
    found = []
    for drop, interval in gates:
        sides = {v <= 0.04 for v in interval}
        outcome = "undecided" if len(sides) == 2 else "passed" if sides == {True} else "failed"
        leans = ("passed" if drop <= 0.04 else "failed") if outcome == "undecided" else None
        found.append(Gate.model_validate({
            "metric": "kappa", "constraint": "max_drop", "limit": 0.04, "target": "openvino-cpu-f32", "value": drop,
            "interval": interval, "n": 9, "unit": "blocks", "outcome": outcome, "leans": leans,
            "more_needed": 14 if leans else None,
        }))  # fmt: skip
    return Verdict.of(found)


VERDICTS = [
    pytest.param(judged((0.01, (0.0, 0.02))), "verdict: the gate passed", marks=pytest.mark.slow),
    (judged((0.01, (0.0, 0.02)), (0.09, (0.05, 0.12))), "verdict: failed: 1 of 2 gates"),
    (judged((0.03, (0.0, 0.06))), "verdict: undecided, leans to passed: 1 of 1 gate undecided; about 14 more blocks would decide"),
    pytest.param(judged(), "verdict: no gates: nothing was judged", marks=pytest.mark.slow),
    (None, "no verdict in this bundle"),
]  # fmt: skip


@pytest.mark.parametrize(("verdict", "words"), VERDICTS)
def test_the_verdict_flies_with_the_bundle(
    verdict: Verdict | None, words: str, cli: Callable, own_bundle: Callable, scene: Path, tmp_path: Path
) -> None:
    folder = own_bundle()
    tiny.edit_manifest(folder, verdict=None if verdict is None else verdict.model_dump(mode="json"))
    out = tmp_path / "o.tif"
    code, text, errors = cli("infer", folder, scene, "-o", out)
    assert code == 0 and words in errors and words not in text
    others = (("verify", folder), ("inspect", folder), ("bench", folder, "--seconds", 0.1))
    for command in (("infer", folder, scene, "-o", out), *others):
        code, text, _ = cli(*command, "--json")
        told = json.loads(text)["verdict"]
        assert code == 0 and (told is None) == (verdict is None)
        if verdict is not None:
            assert f"verdict: {told['headline']}".startswith(words) and told["outcome"] == verdict.outcome
            assert [Gate.model_validate(g) for g in told["gates"]] == list(verdict.gates)
    for command in others:
        assert words.removeprefix("verdict: ") in cli(*command)[1]


@pytest.mark.parametrize(("verdict", "words"), VERDICTS)
def test_require_passed_takes_only_what_passed(
    verdict: Verdict | None, words: str, cli: Callable, own_bundle: Callable, scene: Path, tmp_path: Path
) -> None:
    folder, out = own_bundle(), tmp_path / "o.tif"
    tiny.edit_manifest(folder, verdict=None if verdict is None else verdict.model_dump(mode="json"))
    code, _, errors = cli("infer", folder, scene, "-o", out, "--require-passed")
    if verdict is not None and verdict.proven:
        assert code == 3 and not out.exists() and "UNSIGNED" in errors and "--key" in errors
        ours, theirs = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        key = write_public(ours, tmp_path / "team.pub")
        tiny.sign(folder, theirs)
        code, _, errors = cli("infer", folder, scene, "-o", out, "--require-passed")
        assert (
            code == 3 and not out.exists() and "signed by the key inside it" in errors and "rsedge trust add" in errors
        )
        (folder / "signing.pub").unlink()
        assert cli("infer", folder, scene, "-o", out, "--require-passed")[0] == 3 and not out.exists()
        tiny.sign(folder, ours)
        assert cli("infer", folder, scene, "-o", out, "--require-passed", "--key", key)[0] == 0 and out.exists()
        return
    assert code == 3 and not out.exists() and words in errors
    for gate in () if verdict is None else verdict.gates:
        shown = f"{gate.name}: {gate.word}: Cohen's kappa at most 0.040 under the teacher's: {gate.value:.3f}"
        assert (shown in errors) == (gate.outcome != "passed")


def test_evaluate(cli: Callable, bundle: Callable, scene: Path, labels: Path) -> None:
    code, text, _ = cli("evaluate", bundle(), scene, labels)
    assert code == 0 and "kappa" in text and "IoU" in text
    code, text, _ = cli("evaluate", bundle(), scene, labels, "--ignore", 2, "--json")
    record = json.loads(text)
    assert code == 2 and "255" in record["error"]
    code, text, _ = cli("evaluate", bundle(), scene, labels, "--json")
    record = json.loads(text)
    assert code == 0 and record["kappa"] > 0.999 and set(record["iou"]) == set(tiny.CLASSES)
    assert len(record["confusion"]) == 3 and record["accuracy"] > 0.999


def test_evaluate_does_not_ignore_ignore(cli: Callable, bundle: Callable, scene: Path, labels: Path) -> None:
    told = "0=0,1=1,2=2,255=ignore"
    code, _, errors = cli("evaluate", bundle(), scene, labels, "--ignore", 2, "--label-map", told)
    assert code == 2 and "--ignore would be ignored" in errors and "2=ignore" in errors
    code, text, _ = cli("evaluate", bundle(), scene, labels, "--label-map", told.replace("2=2", "2=ignore"), "--json")
    assert code == 0 and sum(json.loads(text)["confusion"][2]) == 0
    code, _, errors = cli("evaluate", bundle(), scene, labels, "--label-map", told + ",2=ignore")
    assert code == 2 and "says twice what 2 is" in errors


def test_verify(cli: Callable, bundle: Callable, own_bundle: Callable) -> None:
    code, text, _ = cli("verify", bundle())
    assert code == 0 and "golden vector" in text and "UNSIGNED" in text
    record = json.loads(cli("verify", bundle(), "--json")[1])
    assert record["passed"] and record["golden"]["agreement"] == 1.0
    folder = own_bundle()
    stored = dict(np.load(folder / "golden.npz"))
    np.savez(folder / "golden.npz", **{**stored, "logits": stored["logits"] + 1})
    tiny.write_manifest(folder, SPEC, "openvino-cpu-f32", "model.xml")
    code, text, _ = cli("verify", folder, "--json")
    assert code == 3 and json.loads(text)["exit_code"] == 3 and "golden" in json.loads(text)["error"]


def test_bench(cli: Callable, bundle: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = cli("bench", bundle(), "--threads", 1, "--seconds", 0.2, "--json")
    record = json.loads(text)
    assert code == 0 and record["latency_ms"]["p50"] <= record["latency_ms"]["p99"] and record["threads"] == 1
    assert record["provenance"] == "measured" and record["peak_rss_bytes"] > 1 << 20 and record["throughput_per_s"] > 0
    assert record["bursty"]["bursts"] >= 3 and record["throttling"]["first_ms"] > 0
    for noisy in (False, True):
        _print_record({**record, "noisy": noisy})
        assert ("measured, noisy)" in capsys.readouterr().out) == noisy
    code, text, _ = cli("bench", bundle(), "--seconds", 0.2)
    assert code == 0 and "p50" in text and "measured" in text and "bursts of 8" in text


@pytest.mark.parametrize("target", ["openvino-cpu-f32", "onnxruntime-cpu-f32"])
def test_bench_layers(cli: Callable, bundle: Callable, target: str) -> None:
    code, text, _ = cli("bench", bundle(target), "--seconds", 0.1, "--layers", "--json")
    rows = json.loads(text)["layers"]
    assert code == 0 and sum(r["ms"] for r in rows) > 0
    assert any("conv" in (r["type"] + r["kernel"]).lower() for r in rows)
    assert "share" in cli("bench", bundle(target), "--seconds", 0.1, "--layers")[1]


def test_bench_on_a_device_that_is_not_there(cli: Callable, bundle: Callable) -> None:
    code, text, _ = cli("bench", bundle(), "--on", "ssh://127.0.0.1:9", "--json")
    assert code == 4 and "not reached" in json.loads(text)["error"]
    assert cli("bench", bundle(), "--on", "jetson.local", "--json")[0] == 2


def test_inspect(cli: Callable, bundle: Callable, scene: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    header = json.dumps({"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()
    weights.write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))
    (tmp_path / "structure.json").write_text('{"kind": "unet"}')
    onnx = bundle("onnxruntime-cpu-f32") / "model.onnx"
    for path, kind in (
        (bundle(), "bundle"),
        (bundle() / "manifest.json", "bundle"),
        (onnx, "onnx"),
        (bundle() / "model.xml", "openvino-ir"),
        (scene, "raster"),
        (weights, "safetensors"),
        (tmp_path / "structure.json", "model"),
        (tmp_path, "model"),
    ):
        code, text, _ = cli("inspect", path, "--json")
        record = json.loads(text)
        assert code == 0 and record["kind"] == kind and record["bytes"] > 0
        if kind in ("bundle", "onnx", "openvino-ir"):
            assert [b["name"] for b in record["contract"]["bands"]] == list(tiny.NAMES)
    code, text, _ = cli("inspect", onnx)
    assert code == 0 and "blue" in text and "Conv" in text
    weights.write_bytes(weights.read_bytes()[:-3])
    assert cli("inspect", weights)[0] == 2
    assert cli("inspect", tmp_path / "none")[0] == 2
    (tmp_path / "x.onnx").write_bytes(onnx.read_bytes()[:300])
    assert cli("inspect", tmp_path / "x.onnx")[0] == 2


def test_build_away_from_the_device(cli: Callable, bundle: Callable) -> None:
    folder = bundle("tensorrt-jetson-orin-nano-8gb-fp16")
    code, text, _ = cli("infer", folder, "scene.tif", "--output", "o.tif", "--json")
    assert code == 2
    for command in ("verify", "bench"):
        code, text, _ = cli(command, folder, "--json")
        assert code == 4 and f"rsedge build {folder}" in json.loads(text)["error"]
    verdict = "no verdict in this bundle"  # told, though there is nothing yet that could run
    assert verdict in json.loads(cli("verify", folder, "--json")[1])["error"] and verdict in cli("verify", folder)[1]
    code, text, _ = cli("build", bundle("onnxruntime-cpu-f32"), "--json")
    assert code == 2 and "ready to run" in json.loads(text)["error"]


def bad_scene(kind: str, tmp_path: Path) -> tuple[Path, str]:
    """A scene that must be refused, and words of the message."""
    dn = tiny.random_scene(SPEC, 40, 40)
    path = tmp_path / "bad.tif"
    reflectance = (dn * 1e-4).astype(np.float32)
    if kind == "missing file":
        return tmp_path / "none.tif", "no such file"
    if kind == "not a raster":
        path.write_bytes(b"II*\0nothing")
        return path, "not a raster"
    if kind == "too few bands":
        return tiny.write_scene(path, dn[:3], tiny.NAMES[:3]), "'nir' is missing"
    if kind == "other names":
        return tiny.write_scene(path, dn, ("red", "green", "blue", "thermal")), "'nir' is missing"
    if kind == "no names":
        return tiny.write_scene(path, dn, None), "--bands"
    if kind == "gsd":
        from rasterio.transform import from_origin

        return tiny.write_scene(path, dn, tiny.NAMES, transform=from_origin(5e5, 5e6, 250, 250)), "--any-gsd"
    if kind == "dtype":
        return tiny.write_scene(path, (dn >> 8).astype(np.uint8), tiny.NAMES), "--scale"
    if kind == "float digital numbers":
        return tiny.write_scene(path, dn.astype(np.float32), tiny.NAMES), "--scale 0.0001"
    if kind == "all nodata":
        return tiny.write_scene(path, dn * 0, tiny.NAMES), "every pixel is nodata"
    reflectance[1, 4, 4] = np.nan if kind == "nan" else np.inf
    return tiny.write_scene(path, reflectance, tiny.NAMES), "--nan-nodata"


@pytest.mark.parametrize(
    "kind",
    [
        "missing file",
        "not a raster",
        "too few bands",
        "other names",
        "no names",
        "gsd",
        "dtype",
        "float digital numbers",
        "all nodata",
        "nan",
        "inf",
    ],
)
def test_bad_scenes_exit_2_and_write_nothing(kind: str, cli: Callable, bundle: Callable, tmp_path: Path) -> None:
    path, words = bad_scene(kind, tmp_path)
    out = tmp_path / "o.tif"
    code, text, errors = cli("infer", bundle(), path, "--output", out)
    assert code == 2 and words in errors.replace("\n", " ") and not text and not out.exists()
    code, text, _ = cli("evaluate", bundle(), path, path, "--json")
    record = json.loads(text)
    assert code == record["exit_code"] == 2 and words in record["error"]


@pytest.mark.parametrize("change", ["model", "manifest", "zip", "no signature"])
def test_bad_bundles_exit_2(change: str, cli: Callable, own_bundle: Callable, scene: Path, tmp_path: Path) -> None:
    folder = own_bundle()
    tiny.sign(folder, Ed25519PrivateKey.generate())
    target, key = folder, folder / "signing.pub"
    if change == "model":
        file = folder / "model.bin"
        file.write_bytes(file.read_bytes()[:-8])
    elif change == "manifest":
        tiny.edit_manifest(folder, name="other")
    elif change == "no signature":
        (folder / "manifest.sig").unlink()
    else:
        target = Path(shutil.make_archive(str(tmp_path / "b"), "zip", folder))
        target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
    for command in (("verify", target), ("infer", target, scene, "-o", tmp_path / "o.tif"), ("bench", target)):
        code, text, _ = cli(*command, "--key", key, "--json")
        assert code == 2 and json.loads(text)["exit_code"] == 2
    assert not (tmp_path / "o.tif").exists()


def test_usage_errors_exit_2(cli: Callable, bundle: Callable, scene: Path, tmp_path: Path) -> None:
    out = ("--output", tmp_path / "o.tif")
    assert cli("infer", bundle(), scene)[0] == 2
    assert cli("infer", bundle(), scene, *out, "--overlap", 31)[0] == 2
    assert cli("infer", bundle(), scene, *out, "--threads", 0)[0] == 2
    assert cli("infer", bundle(), scene, *out, "--bands", "blue,green")[0] == 2
    assert cli("infer", bundle(), scene, *out, "--scale", 0)[0] == 2


def test_a_missing_runtime_exits_4(bundle: Callable, scene: Path, tmp_path: Path) -> None:
    hide = "import sys; sys.modules['openvino'] = None; from rsedge.cli.main import run_app; sys.exit(run_app(sys.argv[1:]))"
    command = [sys.executable, "-c", hide, "infer", str(bundle()), str(scene), "--output", str(tmp_path / "o.tif")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4 and "pip install 'rsedge[openvino]'" in done.stderr


def test_what_flies_imports_no_torch(bundle: Callable, scene: Path, labels: Path, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from rsedge.cli.main import run_app\n"
        f"b, s, l, o = {str(bundle())!r}, {str(scene)!r}, {str(labels)!r}, {str(tmp_path / 'o.tif')!r}\n"
        "for a in (['infer', b, s, '--output', o], ['evaluate', b, s, l], ['verify', b], ['inspect', b]):\n"
        "    assert run_app(a) == 0\n"
        "heavy = {'torch', 'timm', 'nncf', 'onnx', 'scipy', 'onnxruntime', 'matplotlib', 'pandas'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("loaded: []")


def test_a_killed_run_leaves_no_half_map(bundle: Callable, tmp_path: Path) -> None:
    path = tiny.write_scene(tmp_path / "big.tif", tiny.random_scene(SPEC, 3000, 1200), tiny.NAMES)
    out = tmp_path / "out" / "o.tif"
    command = [sys.executable, "-m", "rsedge.cli", "infer", str(bundle()), str(path), "--output", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if process.poll() is not None or (out.parent.exists() and any(out.parent.iterdir())):
                break
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.05)
        process.kill()
    finally:
        code = process.wait()
    assert code != 0 and not out.exists()
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0 and out.exists()


def test_a_full_disk_exits_4_and_leaves_the_old_map(bundle: Callable, tmp_path: Path) -> None:
    path = tiny.write_scene(tmp_path / "s.tif", tiny.random_scene(SPEC, 600, 600), tiny.NAMES)
    out = tmp_path / "out" / "o.tif"
    out.parent.mkdir()
    out.write_bytes(b"old")
    limited = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from rsedge.cli.main import run_app\n"
        "sys.exit(run_app(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", limited, "infer", str(bundle()), str(path), "--output", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert out.read_bytes() == b"old" and [p.name for p in out.parent.iterdir()] == ["o.tif"]


def test_a_folder_that_is_gone_is_told(
    bundle: Callable[..., Path],
    cli: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, _, said = cli("infer", bundle(), "scene.tif", "-o", "out.tif")
    assert code == 2 and "gone" in said and "Traceback" not in said
