"""Bundles that caption, whose maker put something else into the language model's folder, or asks for what has no end."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.files import sha256_file
from rsedge.runtimes import Bundle
from rsedge.runtimes.bundle import language_files as parts
from rsedge.runtimes.bundle.manifest import MANIFEST, FileEntry, Golden, LanguageRecord, Manifest, Target
from rsedge.runtimes.inference.captions import Speaker
from rsedge.runtimes.inference.golden_answer import AnswerTest, golden_answer, limit_of
from rsedge.runtimes.inference.language import models_in
from rsedge.runtimes.inference.pictures import infer_caption
from rsedge.runtimes.inference.words import Words
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.session import INPUT, LOGITS, SPEC_KEY, VALID
from tests.faults.kinds import Result, kind, told
from tests.faults.material import damaged, flipped, reworded

FOLDER, TILE, WIDTH = "language", 16, 8
SPEC = InputSpec(bands=tuple(BandSpec(name=n) for n in ("red", "green", "blue")), dtype="uint8", tile=TILE)
MANY, LONG = 10**9, "many letters " * 100_000
SETTINGS: list[dict[str, Any]] = [
    {"max_tokens": MANY, "ends": []}, {"max_tokens": 2**62}, {"ends": [-1, 2**40]}, {"image_token": 10**15},
    {"image_token": 0}, {"template": ""}, {"template": "{prompt}"}, {"template": "<image><image>{prompt}"},
    {"template": "<image>" + "{prompt}" * 10_000}, {"template": LONG}, {"prompt": LONG}, {"prompt": "<image>" * 1000},
    {"prompt": "\0"}, {"prompt": ""}, {"prompt": "\u202e\ufffd"}, {"folder": ".."}, {"folder": "/etc"}, {"folder": ""},
]  # fmt: skip
TEXTS = ("a plane ", "", "\0", "\u202e\ufffd", "\U0001f6f0", "<image>", "e\u0301", "\n\t ", "0" * 50, "<s></s>")


@functools.cache
def captioning() -> tuple[Path, Path]:
    """A small bundle with real executables, and a picture; made once per process."""
    from tests.export.targets.test_genai import tokenizer

    folder = Path(tempfile.mkdtemp(prefix="rsedge-captions-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    bundle, words = folder / "bundle", tokenizer()
    (bundle / FOLDER).mkdir(parents=True)
    _save_tower(bundle / "model.xml")
    _save_language(bundle / FOLDER, words)
    dn = np.random.default_rng(1).integers(0, 256, (1, 3, TILE, TILE)).astype(np.uint8)
    session = open_session(bundle / "model.xml", "openvino", input_spec=SPEC, threads=1)
    np.savez(bundle / "golden.npz", dn=dn, **session({INPUT: dn}))
    session.close()
    manifest = Manifest(
        name="captions", task="captioning", classes=("a", "b"), target=Target.parse("openvino-cpu-f32"), input_spec=SPEC,
        model_file="model.xml", files=_listed(bundle), golden=Golden(atol=1e-3),
        language=LanguageRecord(image_token=words.convert_tokens_to_ids(parts.IMAGE_TOKEN), ends=(words.eos_token_id,),
                                template="<image>\n{prompt}", prompt="What?", max_tokens=4, weights="f32"),
    )  # fmt: skip
    (bundle / MANIFEST).write_bytes(manifest.to_bytes())
    Image.fromarray(dn[0].transpose(1, 2, 0)).save(folder / "picture.png")
    return bundle, folder / "picture.png"


def _save_tower(path: Path) -> None:
    """``dn`` -> two image tokens."""
    import openvino as ov
    from openvino import opset13 as ops

    dn = ops.parameter([1, 3, TILE, TILE], np.uint8)
    seen = ops.multiply(ops.convert(dn, "f32"), np.float32(1 / 255))
    halves = ops.reshape(seen, np.array([1, 2, 3 * TILE * TILE // 2]), False)
    weights = np.random.default_rng(0).normal(size=(3 * TILE * TILE // 2, WIDTH)).astype(np.float32)
    tokens = ops.matmul(halves, ops.constant(weights), False, False)
    unknown = ops.convert(ops.multiply(ops.reduce_mean(seen, np.array([1]), False), np.float32(0)), "u8")
    valid = ops.add(unknown, ops.constant(np.ones((1, TILE, TILE), np.uint8)))
    for node, name in ((dn, INPUT), (tokens, LOGITS), (valid, VALID)):
        node.output(0).get_tensor().set_names({name})
    model = ov.Model([ops.result(tokens), ops.result(valid)], [dn], "tower")
    model.set_rt_info(SPEC.model_dump_json(), [SPEC_KEY])
    ov.save_model(model, path, compress_to_fp16=False)


def _save_language(folder: Path, words: Any) -> None:
    """A tokenizer, and a model that looks at the last token alone."""
    import openvino as ov
    from openvino import opset13 as ops
    from openvino_tokenizers import convert_tokenizer

    for model, name in zip(
        convert_tokenizer(words, with_detokenizer=True), (parts.TOKENIZER, parts.DETOKENIZER), strict=True
    ):
        ov.save_model(model, folder / name)
    table = np.random.default_rng(2).normal(size=(len(words), WIDTH)).astype(np.float32)
    tokens = ops.parameter([-1, -1], np.int64)
    found = ops.gather(ops.constant(table), tokens, ops.constant(np.int64(0)))
    new, beams = ops.parameter([-1, -1, WIDTH], np.float32), ops.parameter([-1], np.int32)
    mask, places = (ops.parameter([-1, -1], np.int64) for _ in range(2))
    logits = ops.matmul(
        ops.gather(new, beams, ops.constant(np.int64(0))), ops.constant(table[::-1].copy()), False, True
    )
    for other in (mask, places):
        none = ops.multiply(ops.reduce_sum(ops.convert(other, "f32"), np.array([0, 1]), False), np.float32(0))
        logits = ops.add(logits, none)
    names = {tokens: parts.TOKENS, found: parts.NEW, new: parts.NEW, mask: parts.MASK, places: parts.PLACES,
             beams: parts.BEAMS, logits: parts.LOGITS_OUT}  # fmt: skip
    for node, name in names.items():
        node.output(0).get_tensor().set_names({name})
    ov.save_model(ov.Model([ops.result(found)], [tokens], "embedder"), folder / parts.EMBEDDER)
    ov.save_model(ov.Model([ops.result(logits)], [new, mask, places, beams], "language"), folder / parts.LANGUAGE)


def _listed(bundle: Path) -> dict[str, FileEntry]:
    found = sorted(p for p in bundle.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {p.relative_to(bundle).as_posix(): FileEntry(sha256=sha256_file(p), bytes=p.stat().st_size) for p in found}


def _copied(folder: Path) -> Path:
    return Path(shutil.copytree(captioning()[0], folder / "bundle"))


def _asked(what: str, bundle: Path, **language: Any) -> Result:
    """Lists the files as they are now, as who made them would, and asks for a caption; any text that ends will do."""
    value = json.loads((bundle / MANIFEST).read_text())
    value["files"] = {name: entry.model_dump() for name, entry in _listed(bundle).items()}
    value["language"].update(language)
    (bundle / MANIFEST).write_text(json.dumps(value))

    def act() -> bool:
        with Bundle.open(bundle) as opened:
            found = infer_caption(opened, captioning()[1], bundle.parent / "out.json", None, 1, None)
        return found["tokens"] <= 4096

    return told(what, act)


@kind("captions: what the language model is asked, at its extremes", few=4)
def settings_at_extremes(rng: np.random.Generator, folder: Path) -> Result:
    pick = SETTINGS[int(rng.integers(len(SETTINGS)))]
    return _asked(", ".join(f"{k} {str(v)[:40]!r}" for k, v in pick.items()), _copied(folder), **pick)


@kind("captions: a model of the language folder is another one, or reworded", seconds=90.0, few=3)
def other_models(rng: np.random.Generator, folder: Path) -> Result:
    bundle = _copied(folder)
    models = [bundle / FOLDER / n for n in (parts.TOKENIZER, parts.DETOKENIZER, parts.EMBEDDER, parts.LANGUAGE)]
    file = models[int(rng.integers(len(models)))]
    way = str(rng.choice(["another", "reworded", "damaged"]))
    if way == "another":
        other = [m for m in (*models, bundle / "model.xml") if m != file][int(rng.integers(len(models)))]
        for suffix in (".xml", ".bin"):
            shutil.copy(other.with_suffix(suffix), file.with_suffix(suffix))
        return _asked(f"{file.name} is {other.name}", bundle)
    if way == "damaged":
        content, how = damaged(file.read_bytes(), rng)
        file.write_bytes(content)
        return _asked(f"{file.name} {how}", bundle)
    text = file.read_text()
    file.write_text(reworded(text, rng))
    return _asked(f"{file.name} reworded", bundle)


@kind("captions: a tokenizer of an unsigned bundle, damaged or reworded, given odd texts", few=4)
def tokenizers(rng: np.random.Generator, folder: Path) -> Result:
    """The library that reads them has ended its process before; it must not end ours."""
    bundle = _copied(folder)
    name = (parts.TOKENIZER, parts.DETOKENIZER)[int(rng.integers(2))]
    graph = bundle / FOLDER / name
    file = graph if rng.random() < 0.6 else graph.with_suffix(".bin")
    if file == graph and rng.random() < 0.7:
        file.write_text(text := reworded(file.read_text(), rng, int(rng.integers(1, 4))))
        how = f"reworded, {len(text)} letters"
    else:
        content, how = damaged(file.read_bytes(), rng)
        file.write_bytes(content)
    asked = str(rng.choice(TEXTS)) * int(rng.integers(1, 200))
    return told(f"{file.name} {how}, asked {asked[:20]!r}", lambda: _words_end(bundle, asked, rng))


def _words_end(bundle: Path, text: str, rng: np.random.Generator) -> bool:
    with contextlib.closing(Words(models_in(bundle / FOLDER))) as words:
        found = words.encode(text)
        words.decode(found[:4096])
        words.decode([int(i) for i in rng.integers(-10, 1000, 8)])
    return True


@functools.cache
def speaking(weights: str) -> Path:
    """A bundle whose language model is a tiny random Llama, with its golden answer."""
    from rsedge.export.targets.genai import export_texts
    from rsedge.export.targets.language import WeightSettings
    from tests.export.targets.test_genai import lettered_llava, plain_language, tokenizer

    bundle = Path(shutil.copytree(captioning()[0], captioning()[0].with_name(f"speaking-{weights}")))
    shutil.rmtree(bundle / FOLDER)
    (bundle / FOLDER).mkdir()
    words = tokenizer()
    language = plain_language(lettered_llava(words))
    export_texts(language, words, bundle / FOLDER, WeightSettings(weights))  # type: ignore[arg-type]
    value = json.loads((bundle / MANIFEST).read_text())
    record = LanguageRecord.model_validate(value["language"] | {"weights": weights})
    image = np.random.default_rng(3).normal(size=(1, 4, language.config.hidden_size)).astype(np.float32)
    with contextlib.closing(Speaker(models_in(bundle / FOLDER), record, 1)) as speaker:
        stored = golden_answer(speaker, image, len(words))
    np.savez(bundle / FOLDER / parts.GOLDEN_ANSWER, **stored)
    value["language"] = record.model_copy(update={"golden_atol": limit_of(stored, weights)}).model_dump()
    value["files"] = {name: entry.model_dump() for name, entry in _listed(bundle).items()}
    (bundle / MANIFEST).write_text(json.dumps(value))
    return bundle


@kind("memory: bits of the language model flip, before it is opened or behind", seconds=120.0, few=2)
def language_flips(rng: np.random.Generator, folder: Path) -> Result:
    """Harmful is what moves a score by more than the golden limit on image tokens that the golden answer does not have."""
    whole = speaking(str(rng.choice(["f32", "int8"])))
    worn = Path(shutil.copytree(whole / FOLDER, folder / "worn"))
    file = (worn / str(rng.choice([parts.LANGUAGE, parts.EMBEDDER]))).with_suffix(".bin")
    bits, behind = int(rng.choice([1, 1, 2, 8])), bool(rng.integers(2))
    file.write_bytes(flipped(file.read_bytes(), rng, bits))

    def right() -> bool:
        with Bundle.open(whole) as bundle, contextlib.ExitStack() as stack:
            record = bundle.manifest.language
            assert record is not None and record.golden_atol is not None
            sound = stack.enter_context(contextlib.closing(Speaker.of(bundle, record, 1)))
            bad = stack.enter_context(contextlib.closing(Speaker(models_in(worn), record, 1)))
            test = AnswerTest(sound if behind else bad, bundle, record.golden_atol)
            test.check_start()
            if behind:
                test._speaker = bad
                test.check_again()
            return _furthest(sound, bad, rng) <= record.golden_atol

    return told(f"{file.name}: {bits} bits of {file.stat().st_size} bytes, {'behind' if behind else 'before'}", right)


def _furthest(first: Speaker, second: Speaker, rng: np.random.Generator) -> float:
    gaps = []
    for count in (1, 4, 9):
        asked, tokens = first.question(count), [int(i) for i in rng.integers(3, 100, 4)]
        width = first.language.embed([0]).shape[2]
        image = rng.normal(size=(1, count, width)).astype(np.float32)
        a, b = (s.language.scores(asked, image, s.record.image_token, tokens) for s in (first, second))
        gaps.append(float(np.abs(a - b).max()))
    return float("inf") if np.isnan(gaps).any() else max(gaps)
