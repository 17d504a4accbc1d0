"""The commands in the documents work: cheap ones are run, slow ones are held against the command line's own help."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rsedge.data.documents import read_document
from rsedge.recipe.reading import check_document

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def commands(path: Path) -> list[tuple[str, bool]]:
    """``rsedge`` commands of the console blocks, each with whether it is marked slow."""
    found = []
    for block in blocks(path, "console"):
        for line in block.splitlines():
            text, _, comment = line.partition(" # ")
            if text.startswith("$ rsedge"):
                found.append((text.removeprefix("$ rsedge").strip(), comment.strip().startswith("slow")))
    return found


def rsedge(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rsedge.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_cheap_commands_run(document: Path, tmp_path: Path) -> None:
    for text, slow in commands(document):
        if not slow:
            done = rsedge(shlex.split(text), tmp_path)
            assert done.returncode == 0, f"$ rsedge {text}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_slow_commands_use_options_that_exist(document: Path, tmp_path: Path) -> None:
    for text, slow in commands(document):
        if not slow:
            continue
        words = shlex.split(text)
        done = rsedge([words[0], "--help"], tmp_path)
        assert done.returncode == 0, f"$ rsedge {words[0]} --help\n{done.stderr}"
        shown = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
        missing = [w for w in words[1:] if w.startswith("--") and w.partition("=")[0] not in shown]
        assert not missing, f"$ rsedge {text}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_recipes_in_documents_load(document: Path, tmp_path: Path) -> None:
    for block in blocks(document, "yaml"):
        if block.startswith("name:"):
            path = tmp_path / "recipe.yaml"
            path.write_text(block)
            assert check_document(read_document(path)).targets


def test_the_example_of_parts_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a small decoder and few samples, with two steps."""
    import torch

    from rsedge.models.families import family

    torch.manual_seed(0)
    net = family("latent_decoder").build(latent=8, widths=[32, 64])
    (block,) = blocks(ROOT / "docs/parts.md", "python")
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


def test_make_targets_named_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {m for d in DOCUMENTS for m in re.findall(r"(?:`|\$ )make ([a-z-]+)", d.read_text(encoding="utf-8"))}
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
