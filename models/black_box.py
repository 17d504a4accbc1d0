"""An ONNX file as a network: it answers, and nothing more (no gradients, no taps, nothing to prune)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError, missing_extra
from rsedge.data.files import sha256_file
from rsedge.models.answers import Answer, Inside, class_numbers
from rsedge.models.zoo import OUTPUT_MARK

_KEEPS_VALUES = ("Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Flatten")


class BlackBox(nn.Module):
    """An ONNX file on ONNX Runtime's CPU, with as many threads as torch: x (N, *spec.shape) float32 -> its output.

    Attributes:
        path: the file.
        output: name of the output that is taken.
        answer: how its output becomes logits, as the end of the graph says (:mod:`rsedge.models.answers`).
        digest: buffer, SHA-256 over the file and the files of weights beside it, so that hashes of weights see them.

    Raises:
        RequestError: no such file, no ONNX, not one float input of the contract's shape, several outputs and none named, or
            an output of class numbers.
        MissingCapability: ``onnxruntime`` or ``onnx`` is not installed.
    """

    digest: Tensor

    def __init__(self, name: str, spec: InputSpec) -> None:
        super().__init__()
        path, _, output = name.partition(OUTPUT_MARK)
        self.path = Path(path)
        self._session = _opened(self.path)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            found = ", ".join(f"{i.name} {i.type}" for i in inputs)
            raise RequestError(f"{path}: a black-box teacher takes one float image; this file takes {found}")
        _check_shape(self.path, inputs[0].shape, spec)
        self._input, self._one_by_one = inputs[0].name, inputs[0].shape[0] == 1
        self.output = _chosen_output(self.path, [o.name for o in outputs], output)
        self.answer = Answer(self._inside())
        hashes = "".join(sha256_file(f) for f in (self.path, *self._beside()))
        self.register_buffer("digest", torch.tensor(list(hashlib.sha256(hashes.encode()).digest()), dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        return self.answer.logits(self.raw(x))

    def raw(self, x: Tensor) -> Tensor:
        """What the file itself gives."""
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        arrays = x.detach().cpu().numpy().astype(np.float32)
        batches = np.split(arrays, len(arrays)) if self._one_by_one else [arrays]
        try:
            found = [self._session.run([self.output], {self._input: batch})[0] for batch in batches]
        except (errors.InvalidArgument, errors.RuntimeException, errors.Fail) as error:
            why = str(error).splitlines()[0]
            raise RequestError(f"{self.path}: it cannot run on input {tuple(arrays.shape)}: {why}") from error
        return torch.from_numpy(np.concatenate(found)).to(x.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> BlackBox:
        return self  # A session cannot be copied, and nothing in it changes.

    @property
    def weights(self) -> int:
        """Number of floating-point weights in the file."""
        return sum(math.prod(t.dims) for t in self._graph.initializer if t.data_type in _float_types())

    def _inside(self) -> Inside:
        """The last function of the graph ahead of the output."""
        maker = {name: node for node in self._graph.node for name in node.output}
        node = maker.get(self.output)
        while node is not None and node.op_type in _KEEPS_VALUES:
            node = maker.get(node.input[0])
        kind = "" if node is None else node.op_type
        if node is not None and kind == "ArgMax":
            before = node.input[0] if node.input[0] in {o.name for o in self._graph.output} else ""
            raise RequestError(class_numbers(f"onnx:{self.path}", before and f"onnx:{self.path}{OUTPUT_MARK}{before}"))
        ends: dict[str, Inside] = {"Softmax": "softmax", "Sigmoid": "sigmoid"}
        return ends.get(kind, "logits")

    @cached_property
    def _graph(self) -> Any:
        """The graph, without the content of weights in other files."""
        import onnx

        return onnx.load(str(self.path), load_external_data=False).graph

    def _beside(self) -> Iterable[Path]:
        """Files of weights that the graph names."""
        names = {e.value for t in self._graph.initializer for e in t.external_data if e.key == "location"}
        return (self.path.parent / name for name in sorted(names))


def black_box_in(module: nn.Module) -> BlackBox | None:
    """What answers for a network, alone or as a teacher's; None where torch does."""
    return next((one for one in module.modules() if isinstance(one, BlackBox)), None)


def _opened(path: Path) -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime as ort
        from onnxruntime.capi import onnxruntime_pybind11_state as errors
    except ImportError as error:
        raise missing_extra(str(error.name), "compress", "an ONNX file as a teacher") from error
    if not path.is_file():
        raise RequestError(f"{path}: no such ONNX file")
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except (errors.InvalidProtobuf, errors.InvalidGraph, errors.Fail, errors.NotImplemented, errors.InvalidArgument,
            errors.RuntimeException, errors.NoModel, errors.ModelLoaded, UnicodeError) as error:  # fmt: skip
        raise RequestError(f"{path}: ONNX Runtime cannot open it: {str(error).splitlines()[0]}") from error


def _check_shape(path: Path, declared: list[int | str | None], spec: InputSpec) -> None:
    """Holds the file's fixed sizes against the contract; free ones (names) fit anything, but the batch is 1 or free."""
    expected = (1, *spec.shape)
    words = f"(1, {', '.join(map(str, spec.shape))}) ({spec.layout})"
    fits = len(declared) == len(expected) and all(
        not isinstance(size, int) or size == wanted for size, wanted in zip(declared, expected, strict=True)
    )
    if fits:
        return
    last = spec.is_image and len(declared) == len(expected) and declared[-1] == spec.channels
    hint = "; its bands come last: export it with bands first" if last else ""
    raise RequestError(f"{path}: it takes {tuple(declared)}, the contract under input gives {words}{hint}")


def _chosen_output(path: Path, names: list[str], asked: str) -> str:
    if asked and asked not in names:
        raise RequestError(f"{path}: no output '{asked}'; it gives {', '.join(names)}")
    if not asked and len(names) > 1:
        raise RequestError(
            f"{path}: it gives {len(names)} outputs ({', '.join(names)}); name one: onnx:{path}{OUTPUT_MARK}{names[0]}"
        )
    return asked or names[0]


def _float_types() -> frozenset[int]:
    from onnx import TensorProto

    return frozenset((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16))
