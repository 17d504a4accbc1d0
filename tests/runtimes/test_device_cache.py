"""What a device keeps of its own: private, signed by its key, and mended by the command that the refusal names."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.runtimes.device_cache import KEY, RECORD, Slot, any_for, drop, load, store

SLOT = Slot("engine", "a" * 64, "Orin (SM87)", Path("BUNDLE"))


def test_what_is_stored_is_found_and_private(own_cache: Path) -> None:
    assert load(SLOT) is None and not any_for("engine", SLOT.manifest_sha256)
    path = store(SLOT, b"engine", {"seconds": 1.0})
    found = load(SLOT)
    assert found is not None and (found.content, found.about, found.path) == (b"engine", {"seconds": 1.0}, path)
    assert [stat.S_IMODE(p.stat().st_mode) for p in (own_cache, SLOT.folder, own_cache / KEY)] == [0o700, 0o700, 0o600]
    assert any_for("engine", SLOT.manifest_sha256)
    store(SLOT, b"another", {})
    assert sorted(p.suffix for p in SLOT.folder.iterdir()) == [".engine", ".json"], "the older one is gone"
    drop(SLOT)
    assert load(SLOT) is None


def test_another_bundle_kind_or_gpu_has_another_place(own_cache: Path) -> None:
    store(SLOT, b"engine", {})
    for other in (
        Slot("timing", SLOT.manifest_sha256, SLOT.hardware, SLOT.bundle),
        Slot("engine", "b" * 64, SLOT.hardware, SLOT.bundle),
        Slot("engine", SLOT.manifest_sha256, "Xavier (SM72)", SLOT.bundle),
    ):
        assert load(other) is None
        shutil.copytree(SLOT.folder, other.folder)
        with pytest.raises(IntegrityError, match=r"of another bundle or device.*rsedge build BUNDLE"):
            load(other)


def test_a_record_of_another_device_is_refused_and_built_anew(own_cache: Path) -> None:
    store(SLOT, b"engine", {"version_compatible": True})
    (own_cache / KEY).unlink()
    with pytest.raises(IntegrityError, match=r"is gone.*rsedge build BUNDLE"):
        load(SLOT)
    store(Slot("blob", "c" * 64, "CPU", Path("OTHER")), b"blob", {})  # makes another key
    with pytest.raises(IntegrityError, match=r"altered, or written by another device; build it anew"):
        load(SLOT)
    store(SLOT, b"engine", {})
    assert load(SLOT) is not None


@pytest.mark.parametrize("name", ["device", "entry", "key"])
def test_what_is_open_to_others_is_refused_and_mended(own_cache: Path, name: str) -> None:
    store(SLOT, b"engine", {})
    place = {"device": own_cache, "entry": SLOT.folder, "key": own_cache / KEY}[name]
    place.chmod(place.stat().st_mode | (0o040 if name == "key" else 0o020))
    bits = "u=rw,go=" if name == "key" else "u=rwx,go="
    with pytest.raises(RequestError, match=rf"open to other users.*chmod {bits} {place}"):
        load(SLOT)
    place.chmod(0o600 if name == "key" else 0o700)
    assert load(SLOT) is not None


def test_a_record_too_long_or_nested_is_refused(own_cache: Path) -> None:
    store(SLOT, b"engine", {})
    for content in (b"[" * 100_000, b'{"entry": "' + b"x" * (2 << 20), b"", b"\xff"):
        (SLOT.folder / RECORD).write_bytes(content)
        with pytest.raises(IntegrityError, match="altered"):
            load(SLOT)


@pytest.mark.parametrize("command", ["verify", "build"])
def test_a_place_out_of_reach_is_named_and_no_fault_of_the_bundle(
    command: str,
    own_bundle: Callable[..., Path],
    cli: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("RSEDGE_CACHE", str(tmp_path / ("x" * 300)))
    code, _, errors = cli(command, own_bundle())
    assert code == 4 and "File name too long" in errors and "RSEDGE_CACHE=FOLDER" in errors
