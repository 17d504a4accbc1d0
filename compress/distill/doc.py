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
SEES = """
## A student that looks at less

A student may look at fewer bands than its teacher, at another sensor's, or at fewer dates. The same views teach it: the teacher
sees all of its own, the student its part, and both are judged on the same ground. The student's contract goes into graph and
bundle, so that on board its bands alone are asked for.

```yaml
student: {name: slim-unet, bands: [blue, green, red, nir]}      # of a teacher of six bands
student: {name: slim-unet, bands: 4}                            # the four that the teacher misses most
student: {name: slim-unet, dates: 1}                            # the last of the teacher's dates; [0, 5] for two by number
student:                                                        # another sensor's bands, made of the teacher's
  name: slim-unet
  sensor: planetscope
  bands: [{name: green, wavelength_nm: 547, width_nm: 50}, {name: red, wavelength_nm: 665, width_nm: 31}]
student:                                                        # a band that the teacher does not take, read from the same data
  name: slim-unet
  bands: [red, {name: VV, polarisation: VV, mean: -11.0, std: 4.0}]
```

A made band is the teacher's spectrum, straight between band centres, summed under a Gauss curve of that width (`resample:
nearest` takes the nearest band instead). One that lies more than a tenth of its wavelength beyond the teacher's bands is refused.

`importance: {of: [teacher, student], orders: 32}` adds to the report what each band is worth on the selection set: what is lost
where it holds its mean in every pixel, and its Shapley value over random orders (exact where all subsets are as few), with
intervals over blocks or groups. `bands: 4` takes bands away one after the other, each time the one that costs the teacher least,
and the report has the cost of every step. A network that was trained without a band may do better without it than this says; what
the student really lost stands in its verdict.
"""

VIEWS = """
## Changes of views

What flight shows and the scenes at hand do not. `data.augment.changes` is the share of training views of scenes that get some of
these changes, one to `data.augment.at_once` of them, each drawn with its strength between the bounds; `data.augment.kinds` takes
some of the rows. A row happens to the ground before clouds, to the light behind them, or in the sensor, and every pixel stays
where it is; steady ones are made of finished views, clouds and all. Labels stay as well. With `data.augment.steady` views are
changed when a training reads them, anew in each step, and teach what the teacher answers *without* the changes: the student learns
not to heed them, also where the teacher itself does not bear them, and one answer of the teacher serves all that its view may come
to look like. Without it views are changed once, and the student learns to follow its teacher: where that one breaks, it breaks
with it ([what that brings](degradations.md)).

`steps.distill.hard_views` is the share of each batch that is drawn by how far student and teacher differed on a view when it was
last read, times how far the teacher's answer on it is its own without the change; the other views come in turn
(`compress/distill/hard_views.py`).
"""

MATERIALS = """
## Materials

Ground that scenes lack. `data.augment.materials` is the share of the views of scenes (of those that are not plain crops) over whose
ground one of these is laid, wholly or in patches: a spectrum between the dark and the bright end, through clear air where
reflectance above the atmosphere is meant, with the scene's relief, under haze or a low sun, and under simulated clouds as any
view. The teacher says what it sees there; what is covered has no label. Surface reflectance, worked out by
`python benchmarks/views/materials.py`.
"""

TEACHERS = """
## Several teachers

`teachers` names more of them beside `teacher`, each as `teacher` is named, with a `weight` beside the first one's 1. All are shown
the same views, each the bands of its own contract, and the student learns the weighted mean of what they give: of classes the
mixture of their distributions (its divergence has the gradient of the weighted sum of each teacher's), of labels the mean
probability, of values and images the mean. Classes may stand in another order. It is judged against the first.

```yaml
teacher: {name: ukis-csmask-4b-l1c}
teachers: [{name: "onnx:other.onnx", input: {...}, classes: [clear, cloud, shadow], weight: 0.5}]
```

Embeddings of two networks have no axis in common: each other teacher is tapped, `{teacher: "2:output", student: ..., loss: cosine}`
for its vector or `"2:NAME"` for a feature, which reaches the student through a connector of its own. Teachers that share neither
classes nor grid, contract of inputs or task are refused, and so are boxes, which have no mean.
"""

KEEPS = """
## The teacher's outputs, kept

Views and the teacher's outputs on them are kept on disk and serve every student and run that asks the same teacher about the same
data: in `RSEDGE_TEACHER_CACHE`, else `rsedge/teacher` in the user's cache folder, under an address made of weights, contract, data,
seed, taps, code and versions. `steps.distill.cache: auto` keeps them where that saves a fifth of the time and the disk has room. A
run says before it starts how large they are, what of them is there, and how they are rounded:

| kept | where |
|---|---|
| half precision | its error is at most a thousandth of the output's spread (root mean square, on four views) |
| single precision | otherwise, and boxes |
| the first classes, and the others together | 16 classes or more, `kl` alone at temperature 1 or below, at most 0.001 nats lost |

Outputs that are computed when they are asked for are rounded in the same way: whether they were kept changes no number. A set lies
in shards of at most 32 MB and 256 views, each whole or absent; several processes make one set together, and a kill loses the shard
under way. A batch reads its own views, so that memory does not grow with the set. All sets together take at most 20 GB: the longest
unused go first, those in use stay. Everything there may be removed at any time; it is made again.

In torch (taps, vectors, GPUs) the teacher is asked about as many views at once as fit into half of the free memory by what one of
them was measured to take, 64 at most, and on a CPU no more than 1 GB; its last bits may differ with that number. On a GPU it
answers in bfloat16 where that is measured to be a fifth faster and within 0.02 of its outputs' deviations, or where f32 does not
fit; `steps.distill.teacher_autocast` says otherwise, and is the only way to bfloat16 on a CPU.
"""


def document() -> str:
    """The text."""
    lines = [
        HEAD,
        SEES,
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
    lines += [TEACHERS, KEEPS, VIEWS, "| kind | of the | what | bounds | where these come from |", "|" + "---|" * 5]
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
