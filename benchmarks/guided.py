"""Faults that look for new ways through the code: bytes for one parser, led by coverage (atheris, where it is installed).

    python benchmarks/guided.py PARSER --seconds N --folder FOLDER

`make fuzz` calls it for every parser. It starts from whole files and stops at the first input that is neither taken nor refused by
our own error; that lies in the folder then, as `crash-...`, beside `counts.json`.
Counts are written as they grow, since libFuzzer ends the process itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rsedge.data", "rsedge.runtimes", "rsedge.recipe.reading"]):
    from rsedge.data.arrays import read_arrays
    from rsedge.data.band_names import canonical_band
    from rsedge.data.errors import RsedgeError
    from rsedge.data.json_text import parse_json
    from rsedge.data.scenes.label_files import parse_map
    from rsedge.recipe.reading import load_recipe
    from rsedge.runtimes.bundle.manifest import Manifest

ROOT = Path(__file__).resolve().parents[1]
WHERE = Path("fuzzed")
EVERY = 500


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _recipe(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_bytes(content)
        load_recipe(path)


PARSERS: dict[str, Callable[[bytes], object]] = {
    "json": lambda content: parse_json(content, WHERE),
    "manifest": lambda content: Manifest.from_bytes(content, WHERE),
    "recipe": _recipe,
    "npz": lambda content: read_arrays(WHERE, content=content),
    "label map": lambda content: parse_map(_text(content)),
    "band name": lambda content: canonical_band(_text(content)),
}


def whole(parser: str) -> list[bytes]:
    """Files that the parser takes, to start from."""
    if parser == "recipe":
        return [p.read_bytes() for p in sorted((ROOT / "recipes").glob("*.yaml"))]
    if parser in ("manifest", "npz"):
        sys.path.insert(0, str(ROOT))
        from tests.faults.material import material

        return [(material().bundle / {"manifest": "manifest.json", "npz": "golden.npz"}[parser]).read_bytes()]
    return [
        {
            "json": b'{"a": [1, -2.5e3, null, true, "b"]}',
            "label map": b"0=land,255=water,9=ignore",
            "band name": b"B8A",
        }[parser]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parser", choices=list(PARSERS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder for inputs and counts")
    given = parser.parse_args()
    parse, counts = PARSERS[given.parser], {"refused": 0, "harmless": 0}

    def one(content: bytes) -> None:
        try:
            parse(content)
            counts["harmless"] += 1
        except RsedgeError:
            counts["refused"] += 1
        if sum(counts.values()) % EVERY == 0:
            (given.folder / "counts.json").write_text(json.dumps(counts))

    corpus = given.folder / "inputs"
    corpus.mkdir(parents=True)
    for number, content in enumerate(whole(given.parser)):
        (corpus / str(number)).write_bytes(content)
    limits = [
        f"-max_total_time={given.seconds}",
        "-timeout=20",
        "-rss_limit_mb=4096",
        f"-artifact_prefix={given.folder}/",
    ]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
