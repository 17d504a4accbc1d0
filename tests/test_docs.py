"""The commands in the documents work: cheap ones are run, slow ones are held against the command line's own help."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import runpy
import shlex
import shutil
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

import rsedge as package
from rsedge.cli.main import run_app
from rsedge.data.document_check import set_value
from rsedge.data.documents import read_document
from rsedge.recipe.reading import check_any, check_document, open_recipe
from rsedge.runtimes.wholes.table import WHOLES

ROOT = Path(__file__).parents[1]
HOWTO = ROOT / "docs/howto"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PRACTICE = HOWTO / "practice.md"
"""What makes the files that other pages begin with: those that link to it first."""


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


@dataclass(frozen=True)
class Command:
    """A line of a console block: ``$ words   # remark``, and what the page shows of its output."""

    words: str
    slow: bool = False
    code: int = 0
    shown: tuple[str, ...] = ()

    @property
    def ours(self) -> bool:
        return self.words.startswith("rsedge ")


@dataclass(frozen=True)
class File:
    """A block whose first line is a remark that begins with its name: ``# recipe.yaml``."""

    name: str
    content: str


def steps(path: Path) -> list[Command | File]:
    """What a page has one do, in its order: files to write, commands to give."""
    found: list[Command | File] = []
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S):
        named = re.match(r"# ([\w./-]+\.\w+)\b", block)
        if language == "console":
            found += [_command(text) for text in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.M)[1:]]
        elif named is not None:
            found.append(File(named[1], block))
    return found


def _command(text: str) -> Command:
    line, *shown = text.strip().splitlines()
    words, _, remark = line.partition(" # ")
    code = re.search(r"exit code (\d)", remark)
    return Command(
        words.strip(), remark.strip().startswith("slow"), int(code[1]) if code else 0, tuple(x for x in shown if x)
    )


def commands(path: Path) -> list[Command]:
    """``rsedge`` commands of the console blocks."""
    return [step for step in steps(path) if isinstance(step, Command) and step.ours]


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


def rsedge(arguments: list[str], cwd: Path) -> Ended:
    """Runs a command in ``cwd``, in this process: what is tried here is the commands, not their start."""
    with contextlib.chdir(cwd), redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = run_app(arguments)
    return Ended(code, out.getvalue(), err.getvalue())


def python(program: str, cwd: Path) -> Ended:
    """Runs a program that the page wrote, in this process too."""
    with contextlib.chdir(cwd), redirect_stdout(io.StringIO()) as out:
        runpy.run_path(program, run_name="__main__")
    return Ended(0, out.getvalue(), "")


def follow(page: Path, folder: Path) -> None:
    """Does what a page says, but for what is slow or none of our commands, and looks for what it shows of their outputs."""
    for step in steps(page):
        if isinstance(step, File):
            (folder / step.name).write_text(step.content)
            continue
        words = shlex.split(step.words)
        if step.slow or not (step.ours or (words[0] == "python" and (folder / words[1]).is_file())):
            continue
        done = rsedge(words[1:], folder) if step.ours else python(words[1], folder)
        seen = f"$ {step.words}\n{done.stdout}{done.stderr}"
        assert done.returncode == step.code, seen
        for line in step.shown:
            assert re.search(".*".join(map(re.escape, line.split("..."))), done.stdout + done.stderr), f"{line}\n{seen}"


@pytest.fixture(scope="module")
def practice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder in which somebody did what :data:`PRACTICE` says, and a copy of it."""
    base = tmp_path_factory.mktemp("practice")
    (base / "here").mkdir()
    follow(PRACTICE, base / "here")
    return base / "here", shutil.copytree(base / "here", base / "kept")


@pytest.fixture
def practised(practice: tuple[Path, Path]) -> Path:
    """As it was left, always at the same place: stages of a run heed where their files lie."""
    here, kept = practice
    shutil.rmtree(here)
    return shutil.copytree(kept, here)


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d != PRACTICE], ids=name_of)
def test_cheap_commands_run(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """In the order of the page, in an empty folder, or in one with the files to practise on."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    begun = "](practice.md)" in document.read_text(encoding="utf-8")
    follow(document, request.getfixturevalue("practised") if begun else tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_slow_commands_use_options_that_exist(document: Path, tmp_path: Path) -> None:
    for command in commands(document):
        if not command.slow:
            continue
        words = shlex.split(command.words)[1:]
        done = rsedge([words[0], "--help"], tmp_path)
        if "COMMAND [ARGS]" in done.stdout:
            done = rsedge([*words[:2], "--help"], tmp_path)
        assert done.returncode == 0, f"$ rsedge {words[0]} --help\n{done.stderr}"
        shown = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
        missing = [w for w in words[1:] if w.startswith("--") and w.partition("=")[0] not in shown]
        assert not missing, f"$ {command.words}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_recipes_in_documents_load(document: Path, tmp_path: Path) -> None:
    for block in blocks(document, "yaml"):
        if block.startswith("name:"):
            path = tmp_path / "recipe.yaml"
            path.write_text(block)
            assert check_any(read_document(path)).targets


def test_every_whole_is_in_the_document_of_parts() -> None:
    text = (ROOT / "docs/parts.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in WHOLES)


def test_the_example_of_parts_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a small detector, a small decoder and few samples, with two steps."""
    import torch

    from rsedge.export.parts import export_part
    from rsedge.models.families import family
    from tests.models.prompted import prompted_instances
    from tests.models.small import random_net
    from tests.models.small_parts import small_row

    torch.manual_seed(0)
    net = family("latent_decoder").build(latent=8, widths=[32, 64])
    together, block, sampled = blocks(ROOT / "docs/parts.md", "python")
    sessions = prompted_instances(random_net(small_row("rsprompter-anchor-base")))[1]
    instances = {"sessions": sessions, "image": np.ones((3, 240, 240), np.float32)}
    exec(compile(together, "docs/parts.md", "exec"), instances)
    assert instances["sure"].shape == (2,)
    for shown, small in (("steps=4000", "steps=2"), ("[64, 128, 256, 256]", "[32, 32]")):
        assert shown in block
        block = block.replace(shown, small)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recorded").mkdir()
    for i in range(4):
        latent = np.random.default_rng(i).normal(size=(1, 4, 8, 8)).astype(np.float32)
        np.savez(tmp_path / "recorded" / f"{i}.npz", latent=latent)
    exec(compile(block, "docs/parts.md", "exec"), {"net": net})
    assert {"decoder-int8.xml", "decoder-orin.onnx"} <= {p.name for p in tmp_path.iterdir()}

    denoiser = family("latent_unet")
    step = denoiser.build(latent=8, widths=[32, 32], heads=[2, 2], context=16, tokens=3)
    export_part(denoiser.parts(step)["step"], "step.onnx")
    for shown, small in (("(1, 4, 64, 64)", "(1, 4, 8, 8)"), ('"guidance": 1.0', '"guidance": 1.0, "steps": 2')):
        assert shown in sampled
        sampled = sampled.replace(shown, small)
    found = {"np": np, "text": np.ones((1, 3, 16), np.float32)}
    exec(compile(sampled, "docs/parts.md", "exec"), found)
    assert found["image"].shape == (1, 3, 16, 16)


def test_the_examples_of_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a module in memory to a bundle, the bundle on a real scene, a whole recipe; with few steps and short measurements."""
    import rasterio
    import torch

    from rsedge.data.bands import InputSpec
    from rsedge.data.sets.scene_sources import load_scene
    from rsedge.models.zoo import from_columns

    steps, bundle, recipe = blocks(ROOT / "docs/python.md", "python")
    small = "{name: slim-unet, stem: 16, encoder: [16, 16, 16, 16], blocks: [0, 0, 0, 0], decoder: [16, 16, 16, 16]}"
    for shown, other in (
        ('student="slim-unet"', f"student={yaml.safe_load(small)}"),
        ("steps=1000)", "steps=4, views=8, batch=2, validate_every=2, threads=1, quiet=True)"),
        ('{"params_ratio": 0.7})', '{"params_ratio": 0.9}, steps=1, recovery_steps=1, taylor_batches=1)'),
        ("max_drop=0.01)", 'max_drop=1.0, max_trials=1, max_reversions=0, qat={"steps": 0})'),
    ):
        assert shown in steps
        steps = steps.replace(shown, other)
    monkeypatch.chdir(tmp_path)
    spec = InputSpec.model_validate(from_columns(eval(re.search(r"^spec = (.*)$", steps, re.M)[1])))  # type: ignore[index]
    values = load_scene("spyndex-sentinel2").select(spec.band_names)
    assert values is not None
    scene = spec.to_dn(values)
    tiles = np.stack([scene[:, r : r + 64, c : c + 64] for r in range(0, 192, 48) for c in range(0, 192, 48)])
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 1))
    exec(compile(steps, "docs/python.md", "exec"), {"my_module": net, "tiles": tiles})
    image = tiles[0]
    with rasterio.open(
        "scene.tif", "w", driver="GTiff", height=64, width=64, count=4, dtype=image.dtype, nodata=0
    ) as file:
        file.write(image)
        file.descriptions = spec.band_names
    labels = {"driver": "GTiff", "height": 64, "width": 64, "count": 1, "dtype": "uint8"}
    with rasterio.open("labels.tif", "w", **labels) as file:
        file.write(np.arange(64 * 64, dtype=np.uint8).reshape(1, 64, 64) % 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(bundle, "docs/python.md", "exec"), told := {"image": image})
    assert np.array_equal(told["mask"], told["same"]) and told["mask"].shape == (64, 64)
    assert told["figures"]["n"] > 0 and set(told["figures"]["iou"]) == {"background", "water"}
    (tmp_path / "recipe.yaml").write_text(
        "name: small\nthreads: 1\nteacher:\n  name: onnx:net.onnx\n  classes: [water]\n"
        "  input: {bands: [blue, green, red, nir], tile: 64, quantity: boa_reflectance,\n"
        "    scale: 1.0e-4, nodata: 0, mean: 0.1, std: 0.1}\n"
        "data:\n  train: [{source: spyndex-sentinel2}]\n  test: {source: spyndex-sentinel2}\n  block: 50\n"
        f"student: {small}\nsteps: [{{distill: {{views: 4, batch: 2}}}}]\n"
        "targets: [openvino-cpu-f32]\ngates: [{metric: agreement, min: 0.0}]\n"
    )
    torch.onnx.export(net.eval(), (torch.zeros(1, 4, 64, 64),), "net.onnx", dynamo=True, verbose=False)
    assert "steps__distill__steps=200" in recipe
    exec(compile(recipe.replace("=200", "=2, quiet=True"), "docs/python.md", "exec"), found := {})
    assert found["run"].passed and list(found["run"].bundles) == ["openvino-cpu-f32"]


def test_the_six_lines_of_python_in_readme_are_calls_that_exist() -> None:
    """docs/python.md, which is run, shows the same in full."""
    (block,) = blocks(ROOT / "README.md", "python")
    lines = [line for line in block.splitlines() if line]
    calls = [
        n for n in ast.walk(ast.parse(block)) if isinstance(n, ast.Call) and ast.unparse(n.func).startswith("rsedge.")
    ]
    named = {call.func.attr: call for call in calls if isinstance(call.func, ast.Attribute)}
    assert len(lines) == 6 and {"run", "distill", "prune", "quantize", "export", "load"} <= set(named)
    for name, call in named.items():
        function = package.Bundle.predict if name == "predict" else getattr(package, name)
        assert name == "predict" or name in package.__all__
        own = [None] if name == "predict" else []
        inspect.signature(function).bind(*own, *call.args, **{k.arg: k.value for k in call.keywords if k.arg})
    run = named["run"]
    document = open_recipe(ast.literal_eval(run.args[0]), [])
    for keyword in run.keywords:
        set_value(document, str(keyword.arg).replace("__", "."), ast.literal_eval(keyword.value), "README.md")
    assert check_document(document).targets


def test_make_targets_named_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {m for d in DOCUMENTS for m in re.findall(r"(?:`|\$ )make ([a-z0-9-]+)", d.read_text(encoding="utf-8"))}
    assert named
    assert named <= targets
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_links_between_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            if not link.endswith(".png"):
                assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_no_registry_host_and_no_local_path_in_what_installs() -> None:
    for name in ("Makefile", "constraints.txt", ".ci/run"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|file:|index-url|find-links", text), name
    pins = (ROOT / "constraints.txt").read_text().split()
    assert all(re.fullmatch(r"[a-z0-9._-]+==[A-Za-z0-9.+!]+", pin) for pin in pins)


def test_pythons_are_the_same_in_the_makefile_the_readme_and_the_metadata() -> None:
    """What set-up takes is what a stranger reads; the flying side alone goes down to requires-python."""
    makefile, project = (ROOT / "Makefile").read_text(), (ROOT / "pyproject.toml").read_text()
    taken = re.findall(r"python(3\.\d+)\b", next(x for x in makefile.splitlines() if x.startswith("PYTHON ?=")))
    low, high = taken[0], taken[-1]
    assert f"({low.replace('.', ', ')}) <= sys.version_info[:2] <= ({high.replace('.', ', ')})" in makefile
    assert f"needs Python {', '.join(taken[:-1])} or {high} (or uv)" in makefile
    assert (ROOT / "README.md").read_text().count(f"| Python {low} to {high} or uv") == 2
    flies = re.search(r'requires-python = ">=(3\.\d+)"', project)
    assert flies is not None
    assert re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project) == [flies[1], *taken]
