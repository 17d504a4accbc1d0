"""What an archive of a petabyte and a constellation of a hundred satellites would take: predicted from measured constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PETABYTE = 1e15
DAYS = 30
SATELLITES, KINDS = 100, 4
UPLINK_BIT_S, CONTACT_S = 64e3, 300.0
"""Assumed: a slow uplink, and its seconds in a pass."""
WAVES = (1, 9, 90)
FILES = 3
"""A scene's map, its record and its STAC item."""
RECIPE, TARGET = "cloud-mask", "openvino-cpu-int8"


def archive(row: Mapping[str, Any]) -> list[str]:
    """Throughput by workers."""
    one, two = (row["scenes"] / row["seconds"][workers] for workers in ("1", "2"))
    megabytes = row["scene_bytes"] / 1e6
    return [
        f"`rsedge archive` of {row['scenes']} scenes of {row['edge']} x {row['edge']} pixels ({megabytes:.0f} MB,",
        f"deflated; maps of "
        f"{row['map_bytes'] / 1e6:.2f} MB), its start among it. Made {row['date']}, commit {row['commit']}, {row['cpu']}.",
        "",
        "| workers | scenes an hour | MB/s read | over one worker |",
        "|---|---|---|---|",
        f"| 1 | {3600 * one:,.0f} | {one * megabytes:.0f} | 1 |",
        f"| 2 | {3600 * two:,.0f} | {two * megabytes:.0f} | {two / one:.2f} |",
        "",
    ]


def petabyte(row: Mapping[str, Any]) -> list[str]:
    """Machines, reading and files for a petabyte of the scenes of the row above."""
    rate = row["scenes"] / row["seconds"]["2"]
    scenes = PETABYTE / row["scene_bytes"]
    hours = scenes / rate / 3600
    machines = hours / (24 * DAYS)
    reading, maps = machines * rate * row["scene_bytes"] / 1e9, scenes * row["map_bytes"] / 1e12
    return [
        f"**An archive of a petabyte** of scenes like those above is {scenes:,.0f} scenes. The cost grows in",
        "proportion: a scene is a",
        "job of its own, and nothing is shared but the list of what is claimed.",
        "",
        f"- predicted {hours:,.0f} hours of a machine like this with two workers: in {DAYS} days on predicted",
        f"  {machines:,.0f} machines,",
        f"  which read predicted {reading:.2f} GB/s together; the store must give that.",
        f"- predicted {maps:,.1f} TB of maps in {FILES * scenes:,.0f} files. Begin one command per part of the",
        "  archive, with a folder of",
        "  its own: a command looks at the record of each of its scenes when it begins.",
        "- What one machine takes is measured; that many of them share a store without waiting for each other is assumed.",
        "  `rsedge archive --plan` predicts from scenes of your own, with an interval.",
        "",
    ]


def constellation(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """A recipe for several kinds of hardware, and its bundles sent up in waves."""
    rows = [row for row in recipes if row["recipe"] == RECIPE and row["exit_code"] in (0, 3)]
    sizes = [target["size_bytes"] for row in rows for target in row["targets"] if target["name"] == TARGET]
    bundle, times = max(sizes), [row["seconds"] / 60 for row in rows]
    sent = 8 * bundle / UPLINK_BIT_S
    return [
        f"**A constellation of {SATELLITES} satellites** with {KINDS} kinds of computer is one recipe with {KINDS}",
        "targets or more: the student is trained once, and each target adds its export, its INT8 search and its gates.",
        f"`{RECIPE}` with four targets took {min(times):.0f} to {max(times):.0f} minutes ({len(rows)} seeds, two cores, in part",
        "beside other work).",
        "",
        f"- The model of `{TARGET}` has {bundle / 1e3:.0f} kB at most. By an assumed uplink of",
        f"  {UPLINK_BIT_S / 1e3:.0f} kbit/s it takes",
        f"  predicted {sent:.0f} s, that is predicted {sent / CONTACT_S:.1f} passes of {CONTACT_S:.0f} s; all",
        f"  {SATELLITES} together take",
        f"  predicted {SATELLITES * bundle / 1e6:.0f} MB and {SATELLITES * sent / 3600:.1f} hours of uplink.",
        f"- Roll out in waves of {', '.join(map(str, WAVES))}. On board `rsedge verify` holds the new bundle's",
        "  signature and golden vector before the link to it is set, and the old one stays beside it. The next wave goes when",
        "  `rsedge soak` and the records of scenes of the last one show the latency and the shares of classes that were promised.",
        "- The cost grows with kinds of hardware, not with satellites: gates are judged per target, and a bundle is the same",
        "  bytes on all of a kind.",
        "",
    ]


def paper(rows: Mapping[str, Mapping[str, Any]], recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Both, from the archive's row and the recipes' rows."""
    found = [line for row in rows.values() for line in petabyte(row)]
    return [*found, *constellation(recipes)]
