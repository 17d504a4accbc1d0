"""The terms of a report and what they mean; every page explains its own numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """A term with its definition, and the words of a page that stand for it."""

    name: str
    meaning: str
    words: tuple[str, ...]

    @property
    def anchor(self) -> str:
        return "term-" + re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


GLOSSARY = (
    Term("p50, p90, p99", "Half of the calls took at most p50; 90 % at most p90; 99 % at most p99. One call is one tile, batch 1. "
         "Plan deadlines by p99, compare by p50.", ("p50", "p90", "p99", "latency p50", "latency")),
    Term("speed-up", "How many times faster than the reference on the same device: both take short turns in one run, and it is the "
         "median of the turns' ratios with its 95 % interval; by the wall clock on a quiet machine, by processor time beside "
         "other work. It need not be the ratio of the two p50.", ("speed-up",)),
    Term("throughput", "Tiles per second with the queue kept full; can be more than one over the latency where calls overlap.",
         ("throughput",)),
    Term("measured, predicted, unavailable", "Measured: the artefact ran on this machine. Predicted: worked out from the graph and "
         "the device's profile. The interval is a judged width, from errors on other networks and devices; how often it holds has "
         "not been checked, and it is no substitute for a run on the device. Unavailable: neither was possible, the reason stands "
         "beside it.", ("measured", "predicted", "unavailable")),
    Term("noisy, busy machine", "Noisy: p90 is more than 1.5 times p50. Busy: others took over a quarter of the processors. What "
         "other work the machine did meanwhile stands beside it.", ("noisy",)),
    Term("95 % interval", "Drawn anew over whole units that are independent of each other (blocks of a scene, groups of samples, "
         "images, turns of a measurement). Of a difference from the teacher both are drawn together.", ("interval",)),
    Term("Cohen's kappa", "Agreement with the labels beyond what chance would give: 1 is perfect, 0 is no better than chance. Less "
         "flattered by a frequent class than accuracy is.", ("Cohen's kappa",)),
    Term("IoU, mean IoU", "Pixels both label and prediction give to a class, over pixels either gives to it; the mean is over "
         "classes that occur.", ("IoU", "mean IoU")),
    Term("agreement", "Share of pixels or samples where the artefact gives the same class as the teacher, right or wrong; of "
         "embeddings the mean cosine, of numbers the share of variance explained.", ("agreement",)),
    Term("vs teacher", "The artefact's figure less the teacher's, both on the test set.", ("vs teacher",)),
    Term("score on selection", "What a step chose by: agreement with the teacher, or a figure against labels, on the selection "
         "role. All other accuracies are of the test role, which chooses nothing.", ("score on selection",)),
    Term("parity", "Difference between the exported artefact and its f32 reference on the same input; tells errors of export from "
         "effects of training.", ("parity",)),
    Term("MACs", "Multiply-accumulates for one tile. A measure of work, not of time: two nets of equal MACs can differ several "
         "times in latency.", ("MACs",)),
    Term("params", "Weights of the network.", ("params",)),
    Term("size", "Bytes of the files that fly, weights and graph.", ("size",)),
    Term("peak memory", "Highest resident memory of a fresh process that loads and runs the artefact, interpreter and runtime "
         "included.", ("memory", "peak memory")),
    Term("gate", "A limit from the recipe, held against the value with its 95 % interval. Passed or failed: the whole interval "
         "lies on one side. Undecided: it straddles the limit, or there is none; then the exit code follows the value alone, "
         "unless the run is strict. Any gate that does not hold makes the run exit with code 3.", ("gate", "outcome", "limit")),
    Term("rejected", "A step was tried, brought no gain or cost too much, and was undone. The figures shown are what it would have "
         "given.", ("rejected",)),
    Term("saturated, clipped", "Shares of a band's values at the top of the model's digital numbers, and of those that had to be "
         "cut to fit into them.", ("saturated", "clipped")),
    Term("roles", "Blocks of scenes (or groups of samples) have one role each: train teaches, calibration sets the ranges of INT8, "
         "selection chooses, test judges at the end and chooses nothing.", ("role",)),
)  # fmt: skip

ANCHORS = {word: term.anchor for term in GLOSSARY for word in term.words}
"""Words of a page -> where they are explained."""
