"""What is timed of a bundle: one tile through its network, or one sample through all its parts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.session import INPUT


@dataclass(frozen=True)
class Subject:
    """``run(inputs)`` is what is timed; ``labels`` name it where it cannot tell device, runtime and precision itself."""

    run: Callable[[Any], Any]
    inputs: Mapping[str, Any]
    labels: dict[str, str] | None
    of: str
    """What one run takes, in words: a tile or a sample."""

    def label(self, name: str) -> str:
        """``device``, ``runtime``, ``runtime_version`` or ``precision`` of what runs."""
        return str((self.labels or {}).get(name) or getattr(self.run, name))


@contextlib.contextmanager
def opened_subject(bundle: Bundle, threads: int) -> Iterator[Subject]:
    """A bundle loaded and ready, with its first golden tile or sample as inputs.

    Raises:
        RequestError, MissingCapability, IntegrityError: as :meth:`rsedge.runtimes.bundle.reading.Bundle.session`.
    """
    if bundle.manifest.parts is None:
        with contextlib.closing(bundle.session(threads)) as session:
            yield Subject(session, {INPUT: bundle.golden()[INPUT][:1]}, None, "tile")
        return
    from rsedge.runtimes.bundle.whole import golden_sample, open_whole

    with open_whole(bundle, threads, every=0) as whole:
        sample = golden_sample(bundle)[0]
        # A sample's own axes are no batch: it is no input of what is measured.
        labels = {**whole.labels, "precision": bundle.target.precision}
        yield Subject(lambda _nothing: whole(sample), {}, labels, "sample")
