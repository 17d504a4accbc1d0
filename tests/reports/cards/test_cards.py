"""What others read of a bundle: valid by the libraries that read it, from the record alone, and honest about what is not known."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rsedge.cli.card import _subject
from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_file
from rsedge.data.metrics.evidence import Evidence
from rsedge.data.metrics.statistics import Estimate
from rsedge.data.metrics.verdict import Gate, Verdict
from rsedge.devices.measure.protocol import Energy, LatencyMs, Measurement
from rsedge.export.bundle import zip_bundle
from rsedge.models.zoo import Task
from rsedge.reports.cards.bom import SPDX, ml_bom
from rsedge.reports.cards.model_card import model_card
from rsedge.reports.cards.stac import stac_item
from rsedge.reports.cards.subject import Subject
from rsedge.reports.cards.tasks import TASKS
from rsedge.reports.schema import (
    DataRecord,
    Interval,
    Report,
    SceneRecord,
    SplitRecord,
    TargetRecord,
    TeacherRecord,
    save_report,
)
from rsedge.runtimes.bundle.reading import Bundle
from tests.bundles import _bundles, bundle, cli, own_bundle  # noqa: F401
from tests.runtimes import tiny_models as tiny

MEASURED = Measurement(
    device="cpu", runtime="openvino", runtime_version="2026.4.1-1/releases", precision="f32", threads=1, warmup=5, n=100,
    latency_ms=LatencyMs(p50=2.0, p90=3.0, p99=5.0), throughput_per_s=400, throughput_method="stream", peak_rss_bytes=9_000_000,
    load_average=0.1, noisy=False, drift=1.0,
)  # fmt: skip
PREDICTED = Interval(low_ms=3.0, mid_ms=4.0, high_ms=6.0, basis="predicted, roofline, public rows")
JETSON, CPU = "tensorrt-jetson-orin-nano-8gb-fp16", "openvino-cpu-f32"
GATE = Gate(metric="latency", constraint="max", limit=5.0, target=JETSON, value=4.0, interval=(3.0, 6.0), outcome="undecided",
            leans="passed")  # fmt: skip
Call = Callable[..., tuple[int, str, str]]


def made_bundle(folder: Path, target: str) -> Path:
    made = tiny.make_bundle(folder, tiny.spec(32), target)
    gates = [GATE.model_dump(mode="json")] if target == JETSON else []
    verdict = Verdict.of([Gate.model_validate(g) for g in gates]).model_dump(mode="json")
    tiny.edit_manifest(
        made, verdict=verdict, teacher="big-teacher", created="2026-11-30T12:00:00+00:00", metrics={"kappa": 0.8, "agreement": 0.9},
        tool_versions={"openvino": "2026.4.1", "numpy": "0.0.1"}, recipe_sha256="a" * 64,
        latency=MEASURED.model_dump(mode="json") if target == CPU else {"provenance": "predicted", **PREDICTED.model_dump()},
    )  # fmt: skip
    tiny.sign(made, Ed25519PrivateKey.generate())
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a measured target and a predicted one."""
    root = tmp_path_factory.mktemp("run")
    evidence = {
        "kappa": Evidence(metric="kappa", unit="blocks", n=16, own=Estimate(value=0.8, interval=(0.7, 0.85), se=0.03))
    }
    targets = []
    for name in (CPU, JETSON):
        made_bundle(root / "bundles" / name, name)
        runtime, device, precision = ("openvino", "cpu", "f32") if name == CPU else ("tensorrt", name[9:-5], "fp16")
        latency: dict[str, Any] = (
            {"provenance": "measured", "latency_ms": MEASURED.latency_ms, "measurement": MEASURED}
            if name == CPU
            else {"provenance": "predicted", "interval": PREDICTED, "gates": [GATE], "reason": "numerics: on this CPU"}
        )
        targets.append(
            TargetRecord(
                name=name,
                runtime=runtime,
                device=device,
                precision=precision,
                metrics={"kappa": 0.8},
                agreement=0.9,
                evidence=evidence,
                params=1000,
                size_bytes=4000,
                bundle=f"bundles/{name}",
                **latency,
            )
        )
    save_report(
        Report(
            name="tiny", rsedge_version="0.1.0", classes=list(tiny.CLASSES), targets=targets,
            teacher=TeacherRecord(name="big-teacher", params=10**7, size_bytes=10**8, source="A | paper", licence="CC-BY-4.0"),
            data=DataRecord(manifest_sha256="b" * 64, scenes={
                "mine.tif": SceneRecord(height=9, width=9, sha256="c" * 64, taken="2026-05-01", bounds=(10.0, 50.0, 11.0, 51.0)),
            }, splits={
                "train": SplitRecord(tiles=9, scenes=["naip", "mine.tif"]),
                "test": SplitRecord(tiles=2, scenes=["mine.tif"], labelled=True, note="2 blocks are few"),
            }),
        ),
        root / "report.json",
    )  # fmt: skip
    (root / "recipe.resolved.yaml").write_text("name: tiny\nstudent: {name: slim-unet}\n")
    return root


def subject(run: Path, target: str, alone: bool = False) -> Subject:
    from rsedge.reports.schema import report_of

    with Bundle.open(run / "bundles" / target) as opened:
        return _subject(opened, None if alone else report_of(run), run, run.parent / "cards")


EVERY = [(target, alone) for target in (CPU, JETSON) for alone in (False, True)]


@pytest.mark.parametrize(("target", "alone"), EVERY)
def test_the_bill_of_materials_is_valid_by_its_own_library(run: Path, target: str, alone: bool) -> None:
    pytest.importorskip("jsonschema")
    validation = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion

    bill = ml_bom(subject(run, target, alone))
    for version in (SchemaVersion.V1_6, SchemaVersion.V1_7):
        assert validation.JsonStrictValidator(version).validate_str(json.dumps(bill)) is None
    assert bill == ml_bom(subject(run, target, alone)), "the same records give another bill"
    broken = bill | {"metadata": bill["metadata"] | {"component": {"type": "network", "name": "x"}}}
    assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(broken)) is not None


@pytest.mark.parametrize(("target", "alone"), EVERY)
def test_the_item_is_valid_by_pystac_and_stac_model(run: Path, target: str, alone: bool) -> None:
    pystac = pytest.importorskip("pystac")
    schema = pytest.importorskip("stac_model.schema")
    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    found = stac_item(subject(run, target, alone))
    item = pystac.Item.from_dict(json.loads(json.dumps(found)))
    JsonSchemaSTACValidator().validate_core(item.to_dict(include_self_link=False), pystac.STACObjectType.ITEM, "1.1.0")
    assert schema.SCHEMA_URI.split("/v")[1].startswith("1.5.") and schema.SCHEMA_URI in item.stac_extensions
    read = schema.MLModelProperties.model_validate(found["properties"])
    assert [one.name for one in read.input] == ["dn"] and read.input[0].bands == list(tiny.spec(32).band_names)
    assert read.input[0].input.shape == [1, len(read.input[0].bands), 32, 32]
    assert [one.to_dict()["name"] for one in read.output[0].classes] == list(tiny.CLASSES)
    assert schema.MLModelExtension.has_extension(item)
    model = [a for a in item.assets.values() if "mlm:model" in a.roles]
    assert len(model) == 1 and model[0].extra_fields["mlm:artifact_type"]
    assert re.fullmatch(r"1220[0-9a-f]{64}", model[0].extra_fields["file:checksum"])
    assert (run.parent / "cards" / model[0].href).resolve().is_file()


@pytest.mark.parametrize(("target", "alone"), EVERY)
def test_the_model_card_is_read_by_hugging_face(run: Path, target: str, alone: bool) -> None:
    hub = pytest.importorskip("huggingface_hub")
    text = model_card(subject(run, target, alone))
    card = hub.ModelCard(text)
    assert (card.data.library_name, card.data.pipeline_tag, card.data.license) == (
        "rsedge",
        "image-segmentation",
        "unknown",
    )
    results = card.data.eval_results or []
    assert [(r.metric_type, r.metric_value) for r in results] == ([] if alone else [("kappa", 0.8), ("agreement", 0.9)])
    assert yaml.safe_load(text.split("---\n")[1])["tags"][0] == "remote-sensing"
    cells = {line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("| mine.tif")}
    assert cells <= {7} and ("A \\| paper" in text) != alone


def test_a_prediction_never_stands_without_the_word(run: Path) -> None:
    for alone in (False, True):
        about = subject(run, JETSON, alone)
        texts = [model_card(about), json.dumps(stac_item(about)), json.dumps(ml_bom(about))]
        for text in texts:
            assert "predicted" in text and ": measured on" not in text
            # A line of the card, a value of the JSON.
            for line in re.split(r'\n|", "', text):
                assert "predicted" in line or not re.search(r"\b[346]\.00 ms\b", line), line
    metric = next(m for m in ml_bom(about)["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
                  if "latency" in m["type"])  # fmt: skip
    assert metric["type"].startswith("predicted") and metric["value"] == "predicted 3 to 6"


def test_what_is_not_known_is_said_to_be_not_known(run: Path) -> None:
    whole, alone = subject(run, JETSON), subject(run, JETSON, alone=True)
    limits = "\n".join(whole.limits)
    for words in ("Latency was never measured on jetson", "Memory was not measured", "Energy per inference was not measured",
                  "undecided, leans to passed", "2 blocks are few", "No long run",
                  "No interval is known of: agreement"):  # fmt: skip
        assert words in limits
    assert "not known from the bundle alone" in "\n".join(alone.limits) and alone.sources == []
    assert [f.interval for f in alone.figures] == [None, None] and "interval not known" in alone.figures[0].text
    assert [(s.name, s.roles, s.licence) for s in whole.sources] == [
        ("naip", ("train",), "MIT"), ("mine.tif", ("train", "test"), None),
    ]  # fmt: skip
    assert "2026-05-01 | 10.0000, 50.0000, 11.0000, 51.0000" in model_card(whole)
    mine = next(c for c in ml_bom(whole)["components"] if c["name"] == "mine.tif")
    assert (
        mine["hashes"] == [{"alg": "SHA-256", "content": "c" * 64}]
        and "taken: 2026-05-01" in mine["data"][0]["description"]
    )
    teacher = next(c for c in ml_bom(whole)["components"] if c["bom-ref"] == "teacher")
    assert teacher["licenses"] == [{"license": {"id": "CC-BY-4.0"}}]
    # A version that is not installed here has no licence that we know.
    numpy = next(c for c in ml_bom(whole)["components"] if c["bom-ref"] == "tool:numpy")
    assert "licenses" not in numpy and numpy["properties"][0]["value"] == "not known"


def test_no_text_of_a_bundle_becomes_markup(run: Path) -> None:
    """Bundles are files of others: a name may not add a heading, a link or a tag to a card that is published."""
    found = subject(run, CPU, True)
    evil = "a`b\n# c\n| d <img src=x> [e](http://f) *g* ~~h~~"
    manifest = found.manifest.model_copy(
        update={"name": evil, "teacher": evil, "classes": [evil, "b"], "created": evil}
    )
    card = model_card(dataclasses.replace(found, manifest=manifest)).partition("\n---\n")[2]
    read = re.sub(r"`[^`]*`", "", re.sub(r"\\.", "", card))  # what is not escaped and no code
    assert "`" not in read and not re.search(r"\n# c|<img|\[e\]\(|\*g|~~", read)


def test_energy_is_given_where_it_was_measured(run: Path) -> None:
    about = subject(run, CPU)
    assert about.report is not None
    energy = Energy(joules_per_item=0.36, load_w=5.0, covers="VDD_IN")
    target = about.report.targets[0].model_copy(update={"measurement": MEASURED.model_copy(update={"energy": energy})})
    report = about.report.model_copy(update={"targets": [target]})
    found = Subject(**{**vars(about), "report": report})
    environment = ml_bom(found)["metadata"]["component"]["modelCard"]["considerations"]["environmentalConsiderations"]
    assert environment["energyConsumptions"][0]["activityEnergyCost"] == {"value": pytest.approx(1e-7), "unit": "kWh"}
    assert "0.36 J (VDD\\_IN)" in model_card(found) and "Energy per inference was not measured" not in model_card(found)
    if (validation := pytest.importorskip("cyclonedx.validation.json")) and pytest.importorskip("jsonschema"):
        from cyclonedx.schema import SchemaVersion

        assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(ml_bom(found))) is None


def test_the_command_writes_a_folder_per_target(run: Path, tmp_path: Path, cli: Call) -> None:  # noqa: F811
    code, out, _ = cli("card", run, "-o", tmp_path / "out", "--json")
    assert code == 0 and list(json.loads(out)["cards"]) == [CPU, JETSON]
    assert sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*") if p.is_file()
    ) == [f"{t}/{n}" for t in (CPU, JETSON) for n in ("README.md", "bom.cdx.json", "stac-item.json")]
    code, out, _ = cli("card", run / "bundles" / CPU, "-o", tmp_path / "one")
    assert code == 0 and out.count("wrote ") == 3


def test_bad_input_names_what_is_wrong(run: Path, tmp_path: Path, cli: Call) -> None:  # noqa: F811
    code, _, err = cli("card", tmp_path, "-o", tmp_path / "o")
    assert code == 2 and "is no run folder" in err
    code, _, err = cli("card", run, "-o", run / "bundles" / CPU / "cards")
    assert code == 2 and "lies in the bundle" in err
    code, _, err = cli("card", run / "bundles" / "gone", "-o", tmp_path / "o")
    assert code == 2 and "no such bundle" in err
    about = subject(run, JETSON)
    assert about.report is not None
    other = about.report.targets[1].model_copy(update={"gates": []})
    with pytest.raises(RequestError, match="two runs"):
        Subject(**{**vars(about), "report": about.report.model_copy(update={"targets": [other]})})


@pytest.mark.parametrize("name", ["README.md", "stac-item.json", "bom.cdx.json"])
def test_a_file_that_is_no_card_is_left_alone(run: Path, tmp_path: Path, cli: Call, name: str) -> None:  # noqa: F811
    """A project's README.md above all; of several targets nothing is written where one has such a file."""
    for content in ("# My project\n", "", "---\nlibrary_name: rsedge\n---\n# Compressed by rsedge, my words\n"):
        for place, asked in ((tmp_path / "one", run / "bundles" / CPU), (tmp_path / "all" / JETSON, run)):
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(content)
            code, _, err = cli("card", asked, "-o", tmp_path / place.relative_to(tmp_path).parts[0])
            assert code == 2 and f"{place / name}: is there, and `rsedge card` did not write it" in err, err
            assert [p for p in tmp_path.rglob("*") if p.is_file() and p.name != name] == []
            assert (place / name).read_text() == content
            (place / name).unlink()


def test_cards_are_written_anew(run: Path, tmp_path: Path, cli: Call) -> None:  # noqa: F811
    for _ in range(2):
        assert cli("card", run, "-o", tmp_path / "out")[0] == 0
    card = tmp_path / "out" / CPU / "README.md"
    card.write_text(card.read_text().replace("\n## Input\n", "\n## Input, as I say\n"))
    assert cli("card", run, "-o", tmp_path / "out")[0] == 0 and "as I say" not in card.read_text()


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize("odd", ["plain", "with a space", "100% #1?", "ä;b:c"])
@pytest.mark.parametrize("way", ["beside", "deep", "link", "through a link"])
def test_every_asset_is_what_lies_there(run: Path, tmp_path: Path, cli: Call, form: str, odd: str, way: str) -> None:  # noqa: F811
    """By its reference from the item, as a reader resolves it; size and hash are those of the file."""
    source = Path(shutil.copytree(run / "bundles" / CPU, tmp_path / odd / "bundle"))
    if form == "zip":
        source = zip_bundle(source, tmp_path / odd / "my bundle.zip")
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "far/cards").symlink_to(tmp_path / "far/away", target_is_directory=True)
    (tmp_path / "short").symlink_to(source)
    place = {"beside": tmp_path / odd / "cards", "deep": tmp_path / "a/b/c", "link": tmp_path / "far/cards",
             "through a link": tmp_path / "far/cards/more"}[way]  # fmt: skip
    code, _, err = cli("card", source if way != "link" or form == "zip" else tmp_path / "short", "-o", place)
    assert code == 0, err
    item = json.loads((place / "stac-item.json").read_text())
    where = (place / "stac-item.json").resolve().as_uri()
    for name, asset in item["assets"].items():
        assert re.fullmatch(r"[A-Za-z0-9._~%/-]+", asset["href"]), "no reference by RFC 3986"
        file = Path(urllib.parse.unquote(urllib.parse.urlsplit(urllib.parse.urljoin(where, asset["href"])).path))
        assert file.is_file(), (name, asset["href"])
        assert (asset["file:size"], asset["file:checksum"]) == (file.stat().st_size, f"1220{sha256_file(file)}")
    files = json.loads((run / "bundles" / CPU / "manifest.json").read_text())["files"]
    assert len([a for a in item["assets"].values() if "mlm:model" in a["roles"]]) == 1
    if form == "zip":
        assert list(item["assets"]) == ["bundle"] and item["assets"]["bundle"]["rsedge:files"] == files
    else:
        assert set(item["assets"]) == set(files)
    pystac = pytest.importorskip("pystac")
    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    read = pystac.Item.from_dict(item).to_dict(include_self_link=False)
    JsonSchemaSTACValidator().validate_core(read, pystac.STACObjectType.ITEM, "1.1.0")


def test_every_task_has_its_words() -> None:
    assert set(TASKS) == set(get_args(Task))
    base = pytest.importorskip("stac_model.base")
    assert {name for words in TASKS.values() for name in words.mlm} <= set(get_args(base.ModelTaskNames))


def test_licences_are_named_as_spdx_names_them() -> None:
    spdx = pytest.importorskip("cyclonedx.spdx")
    assert all(spdx.is_supported_id(name) for name in SPDX)
