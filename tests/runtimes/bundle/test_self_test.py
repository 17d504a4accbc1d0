"""The golden vector among the tiles: it lets a sound session through as it is, and stops one whose numbers have changed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsedge.data.errors import IntegrityError
from rsedge.runtimes import Bundle
from rsedge.runtimes.bundle.self_test import SelfTested, self_tested
from rsedge.runtimes.session import INPUT, LOGITS, VALID, Arrays
from tests.runtimes import tiny_models as tiny


class Wearing:
    """A session whose weights change after so many runs: all logits of a class are off by ``shift``. It looks ahead by four inputs,
    as asynchronous runtimes do."""

    def __init__(self, session: Any, after: int, shift: float) -> None:
        self._session, self.left, self.shift, self.closed = session, after, shift, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def __call__(self, inputs: Mapping[str, Any]) -> Arrays:
        outputs = dict(self._session(inputs))
        self.left -= 1
        if self.left < 0:
            outputs[LOGITS] = outputs[LOGITS] + np.array([self.shift, 0, 0], np.float32)[:, None, None]
        return outputs

    def stream(self, inputs: Iterable[Mapping[str, Any]]) -> Iterator[Arrays]:
        waiting: list[Mapping[str, Any]] = []
        for one in inputs:
            waiting.append(one)
            if len(waiting) == 4:
                yield self(waiting.pop(0))
        yield from map(self, waiting)

    def close(self) -> None:
        self.closed = True
        self._session.close()


def tiles(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    return [{INPUT: rng.integers(1, 9000, (1, 4, 32, 32)).astype(np.uint16)} for _ in range(count)]


@pytest.mark.parametrize(("every", "tests"), [(0, 1), (1, 11), (4, 4), (10, 2), (100, 2)])
def test_a_sound_session_gives_what_it_gave(bundle: Callable[..., Path], every: int, tests: int) -> None:
    with Bundle.open(bundle()) as opened, contextlib.closing(opened.session(threads=1)) as session:
        wanted = [o[LOGITS] for o in session.stream(tiles(10))]
        tested = SelfTested(session, opened, every)
        found = [o[LOGITS] for o in tested.stream(tiles(10))]
    assert len(found) == 10 and all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert tested.tests == tests and tested.tiles == 10 and tested.record()["every"] == every


@pytest.mark.parametrize("after", [1, 2, 5, 7, 11])
@pytest.mark.parametrize("streamed", [True, False])
def test_numbers_that_change_on_the_way_stop_it(bundle: Callable[..., Path], after: int, streamed: bool) -> None:
    with Bundle.open(bundle()) as opened:
        worn = Wearing(
            opened.session(threads=1), after, shift=5e-4
        )  # below the golden limit of 1e-3, above a tenth of it
        with self_tested(worn, opened, 3) as tested, pytest.raises(IntegrityError, match=r"after \d+ tiles.*damaged"):
            if streamed:
                list(tested.stream(tiles(10)))
            else:
                for one in tiles(12):
                    tested(one)
        assert worn.closed


class Shrinking(Wearing):
    """Its outputs lose a row, as those of a graph do whose constants have changed; numbers stay."""

    def __init__(self, session: Any, after: int, output: str) -> None:
        super().__init__(session, after, shift=0.0)
        self.output = output

    def __call__(self, inputs: Mapping[str, Any]) -> Arrays:
        outputs = dict(super().__call__(inputs))
        if self.left < 0:
            outputs[self.output] = outputs[self.output][..., 1:, :]
        return outputs


@pytest.mark.parametrize("output", [LOGITS, VALID])
@pytest.mark.parametrize("streamed", [True, False])
def test_outputs_of_another_shape_stop_it_at_once(bundle: Callable[..., Path], output: str, streamed: bool) -> None:
    with Bundle.open(bundle()) as opened:
        found: list[Arrays] = []
        shrinking = Shrinking(opened.session(threads=1), 4, output)
        with self_tested(shrinking, opened) as tested, pytest.raises(IntegrityError, match=f"gives {output} of shape"):
            found.extend(tested.stream(tiles(10)) if streamed else map(tested, tiles(10)))
        assert len(found) == 3


def test_wrong_at_the_start_is_closed_and_says_so(bundle: Callable[..., Path]) -> None:
    with Bundle.open(bundle()) as opened:
        worn = Wearing(opened.session(threads=1), 0, shift=float("nan"))
        with pytest.raises(IntegrityError, match="at the start"):
            self_tested(worn, opened)
        assert worn.closed


def test_no_output_is_left(
    bundle: Callable[..., Path],
    tmp_path: Path,
    cli: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = tmp_path / "scene.tif"
    tiny.write_scene(scene, tiny.random_scene(tiny.spec(32), 100, 100, 3), tiny.NAMES)
    code, out, _ = cli("infer", bundle(), scene, "-o", tmp_path / "a.tif", "--json")
    assert code == 0 and json.loads(out)["self_test"]["tests"] == 2
    code, out, _ = cli("infer", bundle(), scene, "-o", tmp_path / "a.tif", "--self-test", 4, "--json")
    assert code == 0 and json.loads(out)["self_test"]["tests"] == 5
    opening = Bundle.session
    monkeypatch.setattr(Bundle, "session", lambda *args, **more: Wearing(opening(*args, **more), 9, 1.0))
    code, _, errors = cli("infer", bundle(), scene, "-o", tmp_path / "b.tif")
    assert code == 2 and "self-test failed after" in errors and "nothing was written" in errors
    assert not (tmp_path / "b.tif").exists()
