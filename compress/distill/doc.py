"""Writes docs/distillation.md from the tables: ``python -m rsedge.compress.distill.doc docs/distillation.md``; a test holds them
together."""

from __future__ import annotations

import sys
from pathlib import Path

from rsedge.compress.distill.loss_table import CONNECTORS, LOSSES, OWN
from rsedge.data.files import write_bytes
from rsedge.data.scenes.changes import CHANGES
from rsedge.data.scenes.materials import materials

COMMAND = "python -m rsedge.compress.distill.doc docs/distillation.md"
HEAD = f"""# What a student learns by

Written by `{COMMAND}` from the tables in `compress/distill/loss_table.py`, `data/scenes/changes.py` and
`data/scenes/materials.yaml`.

Three names are put together in a recipe: what is compared (the outputs, or a tap: a pair of features), by which loss, through which
connector. Losses of outputs are added up by their weights; without any a task has its own.

```yaml
  - distill:
      loss: [{{name: dkd, options: {{beta: 2.0}}}}, {{name: cwd, weight: 3.0}}]
      labels: 0.3                       # share of the loss that labels make up beside the teacher
      taps:
        - {{teacher: "net.encoder[3]", student: encoder.2, loss: {{name: attention}}, connector: none}}
        - {{teacher: "net.encoder[4]", student: encoder.3, weight: 0.5, loss: {{name: mse}}, connector: masked}}
```

`rsedge teachers NAME` lists the features of a teacher; a wrong name of a student's lists those that there are. What outputs and
features are scaled by (`mse`, `balance` of `kl`) is taken once of the teacher over the training set, at most 256 views of it, and
kept with the record: no loss divides by what its own batch happens to hold. `dist` (between answers), `rkd` and `contrastive` are
defined over a batch.

`labels` teaches beside the teacher wherever training data have some: cross-entropy of classes, yes or no of several labels, squared
distance of values and finer images, boxes. A label counts where a view shows what it was given for: of a sample that no other is
blended into, of a scene's ground outside of blends, simulated clouds and their shadows, of a finer image beside the sample as it
is. Everything else, and what has no label, counts for nothing. Embeddings have none.
"""

VIEWS = """
## Changes of views

What flight shows and the scenes at hand do not. `data.augment.changes` is the share of training views of scenes that get one of
these changes, drawn with its strength between the bounds; `data.augment.kinds` takes some of them. A row happens to the ground
before clouds, to the light behind them, or in the sensor, and every pixel stays where it is. Labels stay as well.
"""

MATERIALS = """
## Materials

Ground that scenes lack. `data.augment.materials` is the share of the views of scenes (of those that are not plain crops) over whose
ground one of these is laid, wholly or in patches: a spectrum between the dark and the bright end, through clear air where
reflectance above the atmosphere is meant, with the scene's relief, under haze or a low sun, and under simulated clouds as any
view. The teacher says what it sees there; what is covered has no label. Surface reflectance, worked out by
`python benchmarks/materials.py`.
"""


def document() -> str:
    """The text."""
    lines = [
        HEAD,
        "## Losses\n",
        "| name | outputs | taps | takes | options | what is compared | source |",
        "|" + "---|" * 7,
    ]
    for name, row in LOSSES.items():
        options = ", ".join(f"`{key}` {value:g}" for key, value in row.options.items())
        cells = (
            f"`{name}`",
            ", ".join(row.outputs),
            "yes" if row.taps else "",
            row.shape,
            options,
            row.words,
            row.source,
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["\nWhere no loss is named:\n", "| outputs | losses |", "|---|---|"]
    lines += [f"| {kind} | {' + '.join(f'`{name}`' for name in names)} |" for kind, names in OWN.items()]
    lines += ["\n## Connectors\n", "| name | |", "|---|---|"]
    lines += [f"| `{name}` | {words} |" for name, words in CONNECTORS.items()]
    lines += [VIEWS, "| kind | of the | what | bounds | where these come from |", "|" + "---|" * 5]
    for name, change in CHANGES.items():
        low, high = change.bounds
        lines.append(
            f"| `{name}` | {change.when} | {change.what} | {low:g} to {high:g} {change.unit} | {change.source} |"
        )
    laid = materials()
    at = [f"{nm:g} nm" for nm in next(iter(laid.values())).nm]
    lines += [MATERIALS, f"| name | what | {' | '.join(at)} | where it comes from |", "|" + "---|" * (3 + len(at))]
    for name, material in laid.items():
        ends = (f"{dark:.3f}-{bright:.3f}" for dark, bright in zip(material.dark, material.bright, strict=True))
        lines.append(f"| `{name}` | {material.what} | {' | '.join(ends)} | {material.source} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_bytes(Path(sys.argv[1]), document().encode())
