"""Files that start a bundle with a machine: filled in, and what systemd and CWL ask of them."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rsedge.data.errors import RequestError
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.serving.deployment import FILES, Places, deployment
from rsedge.version import __version__


@pytest.fixture
def opened(bundle: Callable[..., Path]) -> Bundle:
    return Bundle.open(bundle())


def unit(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z][A-Za-z]+=", line))


def test_every_file_is_filled_in(cli: Callable[..., Any], bundle: Callable[..., Path], tmp_path: Path) -> None:
    for kind, names in FILES.items():
        code, text, _ = cli("deploy", kind, bundle(), "--output", tmp_path / kind)
        assert code == 0 and text.split() == [str(tmp_path / kind / name) for name in names]
        for name in names:
            content = (tmp_path / kind / name).read_text()
            assert "@{" not in content and "tiny" in content
            assert not re.search(r"^(FROM|ARG BASE).*/", content, re.M), "no registry is named"
    assert cli("deploy", "rpm", bundle(), "--output", tmp_path)[0] == 2
    code, _, errors = cli("deploy", "systemd", bundle(), "--output", tmp_path, "--place", "a b")
    assert code == 2 and "--place a b" in errors


@pytest.mark.parametrize("token", [None, "/etc/rsedge/token"])
def test_units(opened: Bundle, tmp_path: Path, token: str | None) -> None:
    found = deployment("systemd", opened, Places(rsedge="/bin/true", token=token, memory_mib=512))
    served, watched = (unit(found[name]) for name in FILES["systemd"])
    assert served.get("LoadCredential") == (f"token:{token}" if token else None)
    assert ("--token-file %d/token" in served["ExecStart"]) == (token is not None)
    for one in (served, watched):
        assert (
            one["DynamicUser"] == "yes" and one["MemoryMax"] == "512M" and one["ReadOnlyPaths"] == "/opt/rsedge/bundle"
        )
    assert watched["PrivateNetwork"] == "yes" and served["IPAddressDeny"] == "any"
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / name) for name in found]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_application_package(opened: Bundle) -> None:
    """What OGC 20-089r1 asks for: a workflow and its tool in one graph, the version, folders staged in and out."""
    found = yaml.safe_load(deployment("cwl", opened, Places(image="team/map:1.0"))["infer.cwl"])
    workflow, tool = found["$graph"]
    assert found["cwlVersion"] == "v1.2" and found["s:softwareVersion"] == __version__
    assert (workflow["class"], tool["class"]) == ("Workflow", "CommandLineTool")
    step = workflow["steps"]["infer"]
    assert (
        step["run"] == f"#{tool['id']}"
        and set(step["in"]) == set(tool["inputs"])
        and set(step["out"]) == set(tool["outputs"])
    )
    assert set(step["in"].values()) <= set(workflow["inputs"])
    assert workflow["outputs"]["maps"]["outputSource"] == "infer/maps"
    assert workflow["inputs"]["scenes"]["type"] == tool["outputs"]["maps"]["type"] == "Directory"
    assert all({"label", "doc"} <= set(one) for one in workflow["inputs"].values())
    assert tool["hints"]["DockerRequirement"]["dockerPull"] == "team/map:1.0"
    assert tool["requirements"]["NetworkAccess"]["networkAccess"] is False


def test_recipes_of_containers(opened: Bundle) -> None:
    found = deployment("container", opened, Places())
    assert list(found) == ["Containerfile"] and "ARG PACKAGE=rsedge[openvino,serve]" in found["Containerfile"]
    jetson = opened.manifest.model_copy(update={"target": Target.parse("tensorrt-jetson-orin-nano-8gb-fp16")})
    found |= deployment("container", dataclasses.replace(opened, manifest=jetson), Places())
    assert list(found) == ["Containerfile", "Containerfile.l4t"]
    for text in found.values():
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert [line.split()[0] for line in lines][:2] == ["ARG", "FROM"] and "USER 10001:10001" in lines
        # Runners of CWL keep an entrypoint and put the tool's own command behind it.
        assert lines[-1] == 'CMD ["rsedge", "verify", "/bundle"]' and not any("ENTRYPOINT" in line for line in lines)
        assert all(" rsedge " in line for line in text.splitlines() if "run --rm" in line)


def test_places_must_be_absolute_and_plain() -> None:
    for wrong in ({"rsedge": "rsedge"}, {"token": "/a;b"}, {"image": "-x"}):
        with pytest.raises(RequestError, match=f"--{next(iter(wrong))}"):
            Places(**wrong).check()


def test_a_folder_whose_name_is_words_of_a_shell_gets_no_recipe(
    own_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    odd = own_bundle().rename(tmp_path / "b; touch x")
    with Bundle.open(odd) as bundle, pytest.raises(RequestError, match="letters, digits"):
        deployment("container", bundle, Places())
