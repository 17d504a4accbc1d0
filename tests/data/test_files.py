"""Files are whole or absent, whatever stops the writer; nothing but a plain file is written over."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsedge.data import files, temporary
from rsedge.data.errors import MissingCapability, RequestError, RsedgeError
from rsedge.data.files import atomic_path, copy_folder, place, replace_folder, write_bytes
from rsedge.data.temporary import TemporaryFolder, collect_leftovers


@pytest.fixture
def umask() -> Iterator[None]:
    old = os.umask(0o027)
    yield
    os.umask(old)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_modes_are_what_the_umask_says_and_private_files_their_owners(tmp_path: Path, umask: None) -> None:
    write_bytes(tmp_path / "open", b"x")
    write_bytes(tmp_path / "key", b"x", private=True)
    assert (mode(tmp_path / "open"), mode(tmp_path / "key")) == (0o640, 0o600)
    with TemporaryFolder(tmp_path) as folder:
        (folder / "made").mkdir()
        replace_folder(folder / "made", tmp_path / "made")
    assert mode(tmp_path / "made") == 0o750


def test_the_file_and_then_its_folder_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_sync(handle)

    def replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_bytes(tmp_path / "new" / "deep" / "x", b"x")
    assert events == ["folder", "folder", "file", "rename", "folder"]
    events.clear()
    with TemporaryFolder(tmp_path) as folder:
        (folder / "made" / "inside").mkdir(parents=True)
        (folder / "made" / "inside" / "x").write_bytes(b"x")
        replace_folder(folder / "made", tmp_path / "made")
    assert sorted(events[:-1]) == ["file", "folder", "folder"] and events[-1] == "folder"


def special(kind: str, folder: Path) -> Path:
    path = folder / kind
    if kind == "link":
        (folder / "precious").write_bytes(b"precious")
        path.symlink_to("precious")
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(os.path.relpath(path))
    elif kind == "device":
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("devices cannot be made here")
    return path


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe", "socket", "device"])
def test_only_plain_files_are_written_over(kind: str, tmp_path: Path) -> None:
    path = special(kind, tmp_path)
    before = path.lstat()
    with pytest.raises(RequestError, match=f"{path}: is a "):
        write_bytes(path, b"x")
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert kind != "link" or (tmp_path / "precious").read_bytes() == b"precious"


def test_a_file_that_must_be_new_is_never_written_over(tmp_path: Path) -> None:
    write_bytes(tmp_path / "key", b"first", replace=False)
    with pytest.raises(RequestError, match="exists already"):
        write_bytes(tmp_path / "key", b"second", replace=False)
    with pytest.raises(RequestError, match="exists already"), atomic_path(tmp_path / "late", replace=False) as path:
        path.write_bytes(b"ours")
        (tmp_path / "late").write_bytes(b"theirs")
    assert (tmp_path / "key").read_bytes() == b"first" and (tmp_path / "late").read_bytes() == b"theirs"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["key", "late"]


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EROFS, RequestError),
        (errno.EACCES, RequestError),
        (errno.EXDEV, RequestError),
        (errno.EIO, MissingCapability),
        (errno.ENOSPC, MissingCapability),
        (errno.EDQUOT, MissingCapability),
    ],
)
def test_what_the_system_refuses_is_told_and_leaves_the_old_file(
    number: int, kind: type[RsedgeError], replace: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x"
    if replace:
        target.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    for name in ("replace", "link"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(kind, match=f"{target}: "):
        write_bytes(target, b"new", replace=replace)
    assert target.exists() == replace and (not replace or target.read_bytes() == b"old")
    assert [p.name for p in tmp_path.iterdir()] == (["x"] if replace else [])


def test_a_file_that_grows_beyond_its_limit_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(MissingCapability, match="larger than a file may be"):
            write_bytes(target, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert target.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["n" * 300, "file/below"])
def test_names_that_cannot_be(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(RequestError, match="cannot be written"):
        write_bytes(tmp_path / name, b"x")


@pytest.mark.parametrize(
    "name", ["https://place/x.tif", "s3://place/x", "zip+file:/x", "/vsimem/x", "/vsicurl/http://a/x"]
)
def test_addresses_are_no_names_of_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="is an address"):
        write_bytes(name, b"x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a:b", "12:30/x", "./x:/y", "vsimem/x"])
def test_colons_in_names_make_no_address(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_bytes(tmp_path / name, b"x")
    write_bytes(f"../{tmp_path.name}/{name}", b"y")
    assert (tmp_path / name).read_bytes() == b"y"


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_takes_anothers_place_whole(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchanged", lambda first, second: False)
    for content in ("first", "second"):
        with TemporaryFolder(tmp_path) as folder:
            (folder / "made").mkdir()
            (folder / "made" / content).write_text(content)
            replace_folder(folder / "made", tmp_path / "bundle")
        assert [p.name for p in (tmp_path / "bundle").iterdir()] == [content]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_cannot_be_copied_whole_says_why(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "large").write_bytes(bytes(5000))
    assert (copy_folder(source, tmp_path / "fine") / "deep" / "large").read_bytes() == bytes(5000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="large") as error:
            copy_folder(source, tmp_path / "copy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG


def test_place_refuses_a_link(tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(b"new")
    with pytest.raises(RequestError, match="is a link"):
        place(tmp_path / "made", special("link", tmp_path))


WRITER = """
    import sys, time
    from rsedge.data.files import atomic_path
    with atomic_path(sys.argv[1]) as path:
        path.write_bytes(b"half")
        print("writing", flush=True)
        time.sleep(60)
"""


def started(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline()
    return child


def ended(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


def test_what_a_kill_leaves_is_collected_and_what_is_in_use_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old")
    running, killed = started(WRITER, target), started(WRITER, target)
    killed.send_signal(signal.SIGKILL)
    ended(killed)
    try:
        assert target.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 3
        monkeypatch.setattr(temporary, "_looked_at", set())
        write_bytes(target, b"new")
        assert len(list(tmp_path.iterdir())) == 2, "the killed one's folder is gone, the running one's is not"
    finally:
        ended(running)
    assert collect_leftovers(tmp_path.parent, deep=True) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x"] and target.read_bytes() == b"new"


def test_what_is_not_provably_ours_stays(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "in").mkdir(parents=True)
    (outside / "lock").touch()
    (tmp_path / ".rsedge-link").symlink_to(outside)
    (tmp_path / ".rsedge-bare").mkdir()
    (tmp_path / ".rsedge-bare" / "precious").touch()
    (tmp_path / ".rsedge-empty").mkdir()
    (tmp_path / ".rsedge-file").touch()
    assert collect_leftovers(tmp_path) == 1
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*"))
    assert found == [".rsedge-bare", ".rsedge-bare/precious", ".rsedge-file", ".rsedge-link", "outside", "outside/in",
                     "outside/lock"]  # fmt: skip


def test_without_locks_nothing_is_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(temporary.fcntl, "flock", refuse)
    with TemporaryFolder(tmp_path) as folder:
        assert collect_leftovers(tmp_path) == 0 and folder.is_dir()
        assert not (folder.parent / "lock").exists()
    assert not list(tmp_path.iterdir())
