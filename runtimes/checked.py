"""Files whose bytes are checked as they are read: what was hashed is what is used, whatever becomes of the file meanwhile.

A path that is hashed and then opened again, or mapped, may hold something else by then. So a file is read once, its bytes are
hashed in memory, and these very bytes go to the runtime.

Travels with the runner: Python 3.8, nothing imported but the standard library and our own that travel too.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Callable, Tuple, Union  # noqa: UP035 - Python 3.8 cannot index the other ones

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.runtimes.onnx_parts import external_data

_FLATBUFFER = ".tflite"
"""LiteRT's: bytes that are no ONNX may read as if they were; what it keeps elsewhere is seen as it is opened."""
_BEFORE_XML = b"\xef\xbb\xbf \t\r\n"

Read = Callable[[Path], bytes]
"""Gives a file's bytes, or refuses them."""


class CheckedModel:
    """A model that is read by ``read`` and never opened by its name; the weights of ``model.xml`` are ``model.bin``.

    Each call reads and checks anew, so that nothing is kept that the runtime has taken over.
    """

    def __init__(self, path: Path, read: Read) -> None:
        self.path, self._read = path, read

    def __str__(self) -> str:
        return str(self.path)

    @property
    def suffix(self) -> str:
        return self.path.suffix

    def content(self) -> bytes:
        """The model's bytes; all of the model, but for the weights beside an ``.xml``.

        Raises:
            RequestError: what ``read`` says; or it keeps weights in other files, which nobody has checked; or an ``.xml`` is none.
        """
        content = self._read(self.path)
        if self.suffix == ".xml":  # runtimes go by the content, and would take a whole ONNX model for one
            if not content.lstrip(_BEFORE_XML).startswith(b"<"):
                raise RequestError(f"{self.path}: no OpenVINO model; copy it again")
        elif self.suffix != _FLATBUFFER and external_data(content):
            raise RequestError(
                f"{self.path}: keeps weights in other files, which are not checked with it; write them into the model "
                "(onnx.save without save_as_external_data)"
            )
        return content

    def weights(self) -> bytes:
        """The weights beside an ``.xml``.

        Raises:
            RequestError: what ``read`` says.
        """
        return self._read(self.path.with_suffix(".bin"))


Model = Union[Path, CheckedModel]  # noqa: UP007 - Python 3.8
"""What sessions open: a file of one's own by its name, or bytes that were checked."""


def model_parts(model: Model) -> Tuple[bytes, bytes]:  # noqa: UP006
    """An IR's graph and weights.

    Raises:
        RequestError: they cannot be read, or are not what was checked.
    """
    if isinstance(model, CheckedModel):
        return model.content(), model.weights()
    try:
        return model.read_bytes(), model.with_suffix(".bin").read_bytes()
    except OSError as error:
        raise RequestError(f"{model}: the IR or its .bin cannot be read ({error.strerror})") from error


def read_whole(path: Path, size: int) -> bytes:
    """The bytes of a plain file that must have ``size`` of them.

    Raises:
        IntegrityError: it is missing, no plain file, or has another size.
    """
    try:
        handle = os.open(str(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not make us wait
    except OSError as error:
        what = "is missing" if error.errno == errno.ENOENT else f"cannot be read ({error.strerror})"
        raise IntegrityError(f"{path}: {what}; copy it again") from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise IntegrityError(f"{path}: is no plain file; copy it again")
    with os.fdopen(handle, "rb") as file:
        try:
            content = file.read(size) if status.st_size == size else b""
        except OSError as error:
            raise IntegrityError(f"{path}: cannot be read ({error.strerror}); copy it again") from error
    if status.st_size != size or len(content) != size:
        raise IntegrityError(
            f"{path}: has {status.st_size} bytes, not {size}; it is truncated or altered, copy it again"
        )
    return content


def read_checked(path: Path, size: int, sha256: str) -> bytes:
    """As :func:`read_whole`; the SHA-256 (hex) of these bytes must be ``sha256``.

    Raises:
        IntegrityError: also where the hash differs.
    """
    content = read_whole(path, size)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise IntegrityError(f"{path}: SHA-256 differs, so it was altered; copy it again")
    return content
