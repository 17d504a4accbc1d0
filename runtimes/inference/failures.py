"""What is kept of a scene that fails, beside where its outputs would lie: how often it was tried, and why it failed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError, RsedgeError
from rsedge.data.files import write_json
from rsedge.data.json_text import read_object
from rsedge.data.objects import address_of

Record = dict[str, Any]
SUFFIX = ".failed.json"


@dataclass(frozen=True)
class Failures:
    """Of one scene.

    Attributes:
        file: ``NAME.failed.json`` in the folder of outputs.
        made_from: what its answer depends on (:func:`rsedge.runtimes.inference.many.identity`); failures of something else do not
            count.
    """

    file: Path
    made_from: Record

    @property
    def tries(self) -> int:
        """How often it has failed."""
        try:
            known = read_object(self.file)
            return int(known["tries"]) if known.get("made_from") == self.made_from else 0
        except (RequestError, OSError, LookupError, TypeError, ValueError):
            return 0

    @property
    def known(self) -> Record:
        """``error``, ``exit_code`` and ``tries`` as they were kept.

        Raises:
            RequestError: nothing is kept.
        """
        found = read_object(self.file)
        return {name: found.get(name) for name in ("error", "exit_code", "tries")}

    def add(self, scene: Path, failure: Record) -> Record:
        """Keeps one more failure (``error``, ``exit_code``) and gives it back with ``tries``. On a full disk it is not kept, which
        the error then says, and the scene is tried until there is room."""
        about = {**failure, "tries": self.tries + 1}
        try:
            write_json(self.file, {"made_from": self.made_from, "scene": address_of(scene), **about})
        except (RsedgeError, OSError) as unwritten:
            about["error"] += f" ({unwritten})"
        return about

    def clear(self) -> None:
        self.file.unlink(missing_ok=True)
