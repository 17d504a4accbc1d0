"""A run in TensorBoard: event files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from rsedge.data.files import make_folder
from rsedge.tracking.base import Figures, Log, Outcome


class TensorboardLog(Log):
    """What ``tensorboard --logdir`` shows: curves, figures, texts; of files those that are text."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.where = folder, f"TensorBoard in {folder}"

    def begin(self, name: str, parameters: Mapping[str, str]) -> None:
        make_folder(self.folder)
        self._writer = SummaryWriter(str(self.folder))
        self._writer.add_text("recipe", "\n".join(f"    {key}: {value}" for key, value in parameters.items()))

    def figures(self, step: int, values: Figures) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def tell(self, texts: Mapping[str, str], files: Sequence[Path]) -> None:
        for name, text in texts.items():
            self._writer.add_text(name, text)
        for path in files:
            if path.suffix == ".md":
                self._writer.add_text(path.name, path.read_text(encoding="utf-8"))

    def end(self, outcome: Outcome) -> None:
        self._writer.add_text("ended", outcome)
        self._writer.close()
