"""Trusted keys: once there is one, bundles must be signed by one; a damaged store is an error and never no store."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from rsedge.cli.main import run_app
from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.export.signing import write_public
from rsedge.runtimes import Bundle
from rsedge.runtimes.bundle import trust
from tests.runtimes import tiny_models as tiny

OURS, THEIRS = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(trust, "SYSTEM", tmp_path / "etc" / "trusted")
    return tmp_path / "config" / "rsedge" / "trusted"


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return write_public(OURS, tmp_path / "team.pub")


def test_without_a_key_bundles_open_and_say_what_their_signature_is_worth(own_bundle: Callable[..., Path]) -> None:
    folder = own_bundle()
    assert Bundle.open(folder).signature.trust == "UNSIGNED" and str(Bundle.open(folder).signature).startswith(
        "UNSIGNED"
    )
    tiny.sign(folder, THEIRS)
    found = Bundle.open(folder).signature
    assert found.trust == "consistent" and found.fingerprint == trust.fingerprint(THEIRS.public_key())
    assert "proves nothing" in str(found)
    (folder / "signing.pub").unlink()
    assert Bundle.open(folder).signature.trust == "unchecked"


def test_with_a_key_only_signed_bundles_open(own_bundle: Callable[..., Path], ours: Path, tmp_path: Path) -> None:
    folder = own_bundle()
    added = trust.add_key(ours)
    assert trust.add_key(ours, "again") == added and len(trust.trusted_keys()) == 1
    with pytest.raises(IntegrityError, match="UNSIGNED"):
        Bundle.open(folder)
    tiny.sign(folder, THEIRS)
    with pytest.raises(IntegrityError, match=r"team \([0-9a-f]{16}") as refused:
        Bundle.open(folder)
    assert f"someone else, with the key of fingerprint {trust.fingerprint(THEIRS.public_key())}" in str(refused.value)
    assert "rsedge trust add KEY.pub" in str(refused.value)
    with pytest.raises(IntegrityError, match=r"signed by someone else, with the key.*give it with --key"):
        Bundle.open(folder, key=ours)
    tiny.edit_manifest(folder, name="altered")
    with pytest.raises(IntegrityError, match="was altered"):
        Bundle.open(folder)
    tiny.sign(folder, THEIRS)
    theirs = write_public(THEIRS, tmp_path / "theirs.pub")
    assert Bundle.open(folder, key=theirs).signature.trust == "trusted"
    trust.add_key(theirs)
    found = Bundle.open(folder).signature
    assert (found.trust, found.name) == ("trusted", "theirs")
    tiny.sign(folder, OURS)
    assert Bundle.open(folder).signature.name == "team"


def test_the_machines_keys_count_beside_the_users(own_bundle: Callable[..., Path], ours: Path, tmp_path: Path) -> None:
    folder = own_bundle()
    trust.add_key(write_public(THEIRS, tmp_path / "theirs.pub"))
    trust.add_key(ours, system=True)
    assert [k.name for k in trust.trusted_keys()] == ["team", "theirs"]
    tiny.sign(folder, OURS)
    assert Bundle.open(folder).signature.name == "team"


def test_removing_by_name_or_fingerprint(ours: Path, tmp_path: Path, store: Path) -> None:
    added = trust.add_key(ours)
    trust.add_key(write_public(THEIRS, tmp_path / "theirs.pub"), "other-team")
    with pytest.raises(RequestError, match="no one key 'te' is trusted there"):
        trust.remove_key("te")
    assert trust.remove_key(added.fingerprint[:8]) == 1
    assert trust.remove_key("other-team") == 0
    assert not store.exists() and trust.trusted_keys() == ()


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "x" * 65, "tab\tname", "é"])
def test_names_that_are_none(ours: Path, name: str) -> None:
    with pytest.raises(RequestError, match="a name has"):
        trust.add_key(ours, name)


def test_a_key_that_lies_there_twice_goes_whole(ours: Path, tmp_path: Path, store: Path) -> None:
    trust.add_key(ours)
    trust.add_key(write_public(THEIRS, tmp_path / "theirs.pub"))
    shutil.copy(store / "team.pub", store / "copy.pub")
    (store / "damaged.pub").write_bytes(b"no key")
    assert trust.remove_key("team") == 2 and {f.name for f in store.iterdir()} == {"damaged.pub", "theirs.pub"}


def test_a_file_of_several_keys_is_refused(ours: Path, tmp_path: Path, store: Path) -> None:
    both = tmp_path / "both.pub"
    both.write_bytes(ours.read_bytes() + write_public(THEIRS, tmp_path / "theirs.pub").read_bytes())
    with pytest.raises(RequestError, match="more than one key"):
        trust.add_key(both)
    assert not store.exists()


def test_a_name_stands_for_one_key(ours: Path, tmp_path: Path) -> None:
    trust.add_key(ours, "team")
    with pytest.raises(RequestError, match="rsedge trust remove team"):
        trust.add_key(write_public(THEIRS, tmp_path / "theirs.pub"), "team")


def test_a_private_key_is_not_kept_on_board(tmp_path: Path) -> None:
    path = tmp_path / "team.pem"
    path.write_bytes(OURS.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(RequestError, match="is a private key"):
        trust.add_key(path)


def damages() -> dict[str, Callable[[Path], object]]:
    file = "team.pub"
    return {
        "empty file": lambda s: (s / file).write_bytes(b""),
        "cut": lambda s: (s / file).write_bytes((s / file).read_bytes()[:60]),
        "garbage": lambda s: (s / file).write_bytes(bytes(range(256))),
        "huge": lambda s: (s / file).write_bytes(b"x" * (1 << 20)),
        "a link": lambda s: ((s / file).rename(s.parent / file), (s / file).symlink_to(s.parent / file)),
        "a folder": lambda s: ((s / file).unlink(), (s / file).mkdir()),
        "a pipe": lambda s: ((s / file).unlink(), os.mkfifo(s / file)),
        "another file": lambda s: (s / "notes.txt").write_text("x"),
        "all gone": lambda s: (s / file).unlink(),
        "open to others": lambda s: s.chmod(0o777),
        "a file open to others": lambda s: (s / file).chmod(0o666),
        "a file for a folder": lambda s: (shutil.rmtree(s), s.write_text("x")),
        "a link to nothing": lambda s: (shutil.rmtree(s), s.symlink_to(s.parent / "nowhere")),
        "a disk that is not there": lambda s: (shutil.rmtree(s.parents[1]), s.parents[1].symlink_to("/nowhere/at")),
        "a file for a folder above": lambda s: (shutil.rmtree(s.parent), s.parent.write_text("x")),
        "a folder above open to others": lambda s: s.parent.chmod(0o777),
        "two folders above open to others": lambda s: s.parents[1].chmod(0o757),
    }


@pytest.mark.parametrize("damage", damages())
def test_a_damaged_store_is_an_error(own_bundle: Callable[..., Path], ours: Path, store: Path, damage: str) -> None:
    folder = own_bundle()
    trust.add_key(ours)
    damages()[damage](store)
    with pytest.raises(IntegrityError, match="trusted"):
        Bundle.open(folder)
    tiny.sign(folder, OURS)
    assert Bundle.open(folder, key=ours).signature.trust == "trusted"


def test_a_broken_key_is_mended_as_the_message_says(ours: Path, store: Path) -> None:
    trust.add_key(ours)
    (store / "team.pub").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"\(rsedge trust remove team\) and add it again"):
        trust.trusted_keys()
    assert trust.remove_key("team") == 0
    trust.add_key(ours)
    assert len(trust.trusted_keys()) == 1


def test_a_folder_of_settings_is_never_relative(ours: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else the policy would depend on where a command is run."""
    monkeypatch.chdir(tmp_path)
    trust.add_key(ours)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for base in ("config", ""):
        monkeypatch.setenv("XDG_CONFIG_HOME", base)
        assert trust.user_folder() == tmp_path / "home" / ".config" / "rsedge" / "trusted"
    monkeypatch.setenv("HOME", "somewhere")
    assert trust.user_folder() is None and trust.trusted_keys() == ()


def test_users_without_a_home_have_no_keys_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for base in ("/dev/null", "/nonexistent"):
        monkeypatch.setenv("XDG_CONFIG_HOME", base)
        assert trust.trusted_keys() == ()


def test_what_a_killed_add_leaves_is_no_key(ours: Path, store: Path) -> None:
    trust.add_key(ours)
    (store / ".team.x1.pub").write_bytes(b"")
    assert len(trust.trusted_keys()) == 1
    assert store.stat().st_mode & 0o777 == 0o700


def test_command_line(own_bundle: Callable[..., Path], ours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def cli(*arguments: object) -> tuple[int, str, str]:
        code = run_app([str(a) for a in arguments])
        return code, *capsys.readouterr()

    folder = own_bundle()
    assert "no trusted keys" in cli("trust", "list")[1]
    code, out, _ = cli("trust", "add", ours, "--name", "ground", "--json")
    assert code == 0 and json.loads(out)["name"] == "ground"
    mark = trust.fingerprint(OURS.public_key())
    assert mark in cli("trust", "list")[1]
    for command in ("verify", "inspect", "bench"):
        code, out, errors = cli(command, folder)
        assert code == 2 and "UNSIGNED" in errors and "ground" in errors, command
    tiny.sign(folder, OURS)
    code, out, _ = cli("verify", folder)
    assert code == 0 and f"signed by ground (key fingerprint {mark})" in out
    assert json.loads(cli("inspect", folder, "--json")[1])["signed_by"] == {"name": "ground", "fingerprint": mark}
    assert cli("trust", "remove", "ground")[0] == 0
    (folder / "manifest.sig").unlink()
    assert "UNSIGNED" in cli("verify", folder)[1] and "UNSIGNED" in cli("inspect", folder)[1]
    assert json.loads(cli("verify", folder, "--json")[1])["signature"] == "UNSIGNED"


def test_a_key_that_lies_in_the_bundle_proves_nothing(own_bundle: Callable[..., Path]) -> None:
    folder = own_bundle()
    tiny.sign(folder, THEIRS)
    with pytest.raises(RequestError, match="lies in the bundle itself"):
        Bundle.open(folder, folder / "signing.pub")


def test_a_key_added_while_the_last_one_is_removed_stays(
    ours: Path, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust.add_key(ours)
    theirs = write_public(THEIRS, tmp_path / "others.pub")
    remove = trust._remove_if_empty
    monkeypatch.setattr(trust, "_remove_if_empty", lambda folder: (trust.add_key(theirs), remove(folder)))
    trust.remove_key("team")
    assert [k.name for k in trust.trusted_keys()] == ["others"]


def test_bench_takes_the_key_that_is_given_also_for_its_measure_of_memory(
    own_bundle: Callable[..., Path], ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = own_bundle()
    tiny.sign(folder, THEIRS)
    trust.add_key(ours)
    theirs = write_public(THEIRS, tmp_path / "others.pub")
    assert run_app(["bench", str(folder), "--seconds", "0.5"]) == 2
    assert run_app(["bench", str(folder), "--seconds", "0.5", "--key", str(theirs), "--json"]) == 0, capsys.readouterr()


def test_a_key_that_cannot_be_written_leaves_no_policy(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MissingCapability("no space left")

    monkeypatch.setattr(trust, "write_bytes", full)
    with pytest.raises(MissingCapability):
        trust.add_key(ours)
    assert trust.trusted_keys() == ()
