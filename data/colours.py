"""Colours of classes, the same in reports, maps and pictures."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

# Okabe and Ito (2008), colour universal design: told apart with every common colour vision.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#7F7F7F")
# Words in class names that have an expected colour; the first hit wins.
CLASS_HINTS = (
    ("shadow", "#44337A"),
    ("cirrus", "#B8D8F0"),
    ("thin", "#B8D8F0"),
    ("cloud", "#F4F4F4"),
    ("snow", "#56B4E9"),
    ("ice", "#56B4E9"),
    ("water", "#0072B2"),
    ("flood", "#0072B2"),
    ("background", "#8A9A5B"),
    ("clear", "#8A9A5B"),
    ("land", "#8A9A5B"),
)


def class_colours(classes: Sequence[str], given: Mapping[str, str] | None = None) -> list[str]:
    """One '#rrggbb' per class: the given one, one that the name suggests, or the next of the palette, again from its
    start where there are more classes than colours."""
    free = itertools.cycle(PALETTE[1:])
    taken: list[str] = []
    for name in classes:
        hint = next((c for word, c in CLASS_HINTS if word in name.lower() and c not in taken), None)
        spare = set(PALETTE[1:]) - set(taken)
        taken.append((given or {}).get(name) or hint or next(c for c in free if c in spare or not spare))
    return taken
