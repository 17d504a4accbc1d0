"""Captioning in a whole recipe: tiny random LLaVAs in their authors' files, their tower compressed, text from the bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openvino as ov
import pytest
import torch

from rsedge.cli.main import run_app
from rsedge.data.files import sha256_file
from rsedge.data.scenes.images import read_rgb
from rsedge.runtimes.bundle.reading import Bundle
from tests import UNTUNED
from tests.export.targets.test_genai import tokenizer
from tests.export.targets.test_language import greedy
from tests.rsedge.tiny_vlm import EDGE, TEMPLATE, TOKENS, pictures, save_llava, save_pretrained, use_tiny_rows

pytest.importorskip("transformers")
pytest.importorskip("openvino_tokenizers")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
QUESTION, OTHER, LENGTH = "What is there?", "How many?", 6
DATA = {"samples": {"source": "captions:rsicd", "root": "rsicd"}, "calibration": {"tiles": 4}}
LANGUAGE = {"template": TEMPLATE, "prompt": QUESTION, "max_tokens": LENGTH, "images": 3}
AS_IT_IS: dict[str, Any] = {
    "name": "as-it-is", "threads": 1, "teacher": {"name": "geopix", "checkpoint": "geopix"}, "data": DATA,
    "student": {"name": "teacher"}, "steps": [{"distill": {"steps": 0}}], "language": {**LANGUAGE, "weights": "f32"},
    "targets": ["openvino-cpu-f32"],
    "gates": [{"metric": m, "min": 1.0} for m in ("token_agreement", "caption_agreement")]
    + [{"metric": "rouge_l", "max_drop": 0.0}],
}  # fmt: skip
COMPRESSED: dict[str, Any] = {
    "name": "compressed", "threads": 1, "data": DATA,
    "teacher": {"name": "rs-llava", "checkpoint": "llava", "adapter": "adapter", "vision": "tower"},
    "student": {"name": "narrow-copy", "arch": {"mlp": 48}},
    "steps": [
        {"distill": {"steps": 30, "views": 8, "batch": 4, "cache": "always", "autocast": "off", "validate_every": 15}},
        {"prune": {"target": {"params_ratio": 0.9}, "steps": 1, "recovery_steps": 6, "max_drop": 1.0, "round_to": 1,
                   "taylor_batches": 1}},
        {"quantize": {"max_drop": 1.0, "max_trials": 1, **UNTUNED}},
    ],
    "language": {**LANGUAGE, "weights": "int4", "group_size": 16, "ratio": 0.8},
    "targets": ["openvino-cpu-int8", "onnxruntime-cpu-f32"],
    "gates": [
        {"metric": "cosine", "min": 0.5}, {"metric": "first_token_ms", "max": 6e4, "target": "openvino-cpu-int8"},
        {"metric": "bleu4", "max_drop": 1.0}, {"metric": "size", "max": 1000, "target": "onnxruntime-cpu-f32"},
    ],
}  # fmt: skip


def run(folder: Path, content: dict[str, Any], code: int) -> dict[str, Any]:
    (folder / "recipe.yaml").write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_rows(patch)
        patch.setattr("rsedge.stages.captions.SPEED_SECONDS", 0.1)
        assert run_app(["run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run")]) == code
    report: dict[str, Any] = json.loads((folder / "run/report.json").read_text())
    return report


def stage(folder: Path, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / f"run/stages/{name}/record.json").read_text())["value"]
    return value


@pytest.fixture(scope="module")
def as_it_is(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("as-it-is")
    model = save_pretrained(folder / "geopix")
    pictures(folder / "rsicd", 12)
    yield folder, model, run(folder, AS_IT_IS, 0)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("compressed")
    model = save_llava(folder / "llava", folder / "adapter", folder / "tower")
    pictures(folder / "rsicd", 12)
    yield folder, model, run(folder, COMPRESSED, 3)


def said_by(model: Any, picture: Path, question: str) -> list[int]:
    """What transformers' own LLaVA says of a picture."""
    words = tokenizer()
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.48145466, 0.4578275, 0.40821073),
                                                          (0.26862954, 0.26130258, 0.27577711)))  # fmt: skip
    pixels = (torch.from_numpy(read_rgb(picture, EDGE))[None] / 255 - mean) / std
    asked = TEMPLATE.replace("{prompt}", question).replace("<image>", "<image>" * TOKENS)
    return greedy(model, pixels, words.encode(asked), LENGTH)


@pytest.mark.slow
def test_the_whole_as_it_is_says_what_transformers_says(as_it_is: Any, tmp_path: Path) -> None:
    folder, model, report = as_it_is
    held_out = [3, 7, 11]
    expected = [said_by(model, folder / f"rsicd/RSICD_images/{i}.png", QUESTION) for i in held_out]
    assert stage(folder, "captions")["teacher"]["tokens"] == expected
    assert len({tuple(e) for e in expected}) > 1, "the picture must matter"
    (target,) = report["targets"]
    assert target["metrics"]["caption_agreement"] == target["metrics"]["token_agreement"] == 1.0
    assert target["metrics"]["rouge_l"] == report["teacher"]["metrics"]["rouge_l"]
    assert report["data"]["splits"]["test"]["tiles"] == 3
    bundle, square = str(folder / "run/bundles/openvino-cpu-f32"), folder / "rsicd/RSICD_images/0.png"
    text = tokenizer().decode(said_by(model, square, OTHER)).removesuffix("</s>")
    assert run_app(["infer", bundle, str(square), "--prompt", OTHER, "-o", str(tmp_path / "a.txt")]) == 0
    assert (tmp_path / "a.txt").read_text() == text + "\n"


def test_the_bundle_answers_as_genai_does(compressed: Any, tmp_path: Path) -> None:
    folder, _, _ = compressed
    bundle, picture = str(folder / "run/bundles/openvino-cpu-int8"), tmp_path / "p.png"
    square = folder / "rsicd/RSICD_images/0.png"
    assert run_app(["infer", bundle, str(square), "-o", str(tmp_path / "a.txt")]) == 0
    assert run_app(["infer", bundle, str(square), "--prompt", OTHER, "-o", str(tmp_path / "a.json")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["prompt"] == OTHER and found["signature"] == "consistent" and 1 <= found["tokens"] <= LENGTH
    assert run_app(["infer", bundle, str(square), "-o", str(tmp_path / "a.tif")]) == 2
    assert run_app(["infer", bundle, str(square), "--prompt", "<image>", "-o", str(tmp_path / "a.txt")]) == 2
    assert run_app(["evaluate", bundle, str(square), str(square)]) == 2
    picture.write_bytes(b"no picture")
    assert run_app(["infer", bundle, str(picture), "-o", str(tmp_path / "b.txt")]) == 2
    genai = pytest.importorskip("openvino_genai")
    exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    pipeline = genai.VLMPipeline(f"{bundle}/language", "CPU", **exact)
    image = ov.Tensor(read_rgb(square).transpose(1, 2, 0)[None].copy())
    for question, text in ((QUESTION, (tmp_path / "a.txt").read_text().removesuffix("\n")), (OTHER, found["caption"])):
        answer = pipeline.generate(
            question, images=[image], max_new_tokens=LENGTH, do_sample=False, apply_chat_template=False
        )
        assert [t.strip() for t in answer.texts] == [text]


def test_a_language_model_with_another_weight_is_found_out(
    compressed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the files are listed as they are now: the golden answer is what it said when the bundle was made."""
    folder, _, _ = compressed
    bundle = Path(shutil.copytree(folder / "run/bundles/openvino-cpu-int8", tmp_path / "bundle"))
    assert run_app(["verify", str(bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["golden_answer"]
    assert found["passed"] and found["max_abs_difference"] < 1e-3 * found["limit"]
    weights = bundle / "language/openvino_language_model.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    weights.write_bytes(content)
    value = json.loads((bundle / "manifest.json").read_text())
    value["files"]["language/openvino_language_model.bin"]["sha256"] = sha256_file(weights)
    (bundle / "manifest.json").write_text(json.dumps(value))
    (bundle / "manifest.sig").unlink()
    assert run_app(["verify", str(bundle)]) == 3
    picture, answer = folder / "rsicd/RSICD_images/0.png", tmp_path / "a.txt"
    assert run_app(["infer", str(bundle), str(picture), "-o", str(answer)]) == 2 and not answer.exists()
    assert "golden answer differs" in capsys.readouterr().err


def test_three_folders_make_the_teacher_whose_adapter_is_merged(compressed: Any) -> None:
    folder, model, _ = compressed
    expected = [said_by(model, folder / f"rsicd/RSICD_images/{i}.png", QUESTION) for i in (3, 7, 11)]
    assert stage(folder, "captions")["teacher"]["tokens"] == expected


def test_a_smaller_tower_is_distilled_pruned_and_quantized(compressed: Any) -> None:
    folder, _, report = compressed
    stages = {s["name"]: s for s in report["stages"]}
    assert list(stages) == [
        "data",
        "language",
        "teacher",
        "distill",
        "prune",
        "export",
        "quantize",
        "verify",
        "captions",
        "bundle",
    ]
    params = [report["teacher"]["params"], stages["distill"]["after"]["params"], report["targets"][0]["params"]]
    assert params == sorted(params, reverse=True) and len(set(params)) == 3
    target = report["targets"][0]
    assert target["agreement"] > 0.7 and 0 <= target["metrics"]["token_agreement"] <= 1
    assert stages["language"]["after"]["size_bytes"] > 0 and "int4" in stages["language"]["reason"]
    page = (folder / "run/report.html").read_text()
    texts = stage(folder, "captions")["targets"]["openvino-cpu-int8"]["texts"]
    assert 'id="captions"' in page and len(texts) == 3


def test_a_target_without_the_language_model_says_so(compressed: Any, tmp_path: Path) -> None:
    folder, _, report = compressed
    failed = [g["name"] for t in report["targets"] for g in t["gates"] if not g["passed"]]
    assert failed == ["size max 1000"]
    assert any("onnxruntime-cpu-f32: the bundle holds the vision tower alone" in note for note in report["notes"])
    picture = str(folder / "rsicd/RSICD_images/1.png")
    for name, speaks in (("openvino-cpu-int8", True), ("onnxruntime-cpu-f32", False)):
        with Bundle.open(folder / "run/bundles" / name, key=folder / "run/keys/signing.pub") as bundle:
            assert (bundle.manifest.language is not None) == speaks
            assert any(f.startswith("language/") for f in bundle.manifest.files) == speaks
            assert bundle.verify(threads=1).passed
        code = run_app(["infer", str(folder / "run/bundles" / name), picture, "-o", str(tmp_path / "a.txt")])
        assert code == (0 if speaks else 4)
