"""Writes devices/predict/efficiencies.yaml: the priors, fitted to the public rows where there are any (`make fit-public`)."""

from __future__ import annotations

import yaml
from public_fit import cases_by_set, efficiencies, priors, validate
from public_rows import facts_folder, public_rows

from rsedge.data.files import atomic_path
from rsedge.devices.predict.efficiency import SHIPPED, plain

HEAD = """\
# Written by `make fit-public` from benchmarks/efficiency_priors.yaml and the public latency rows; do not edit by hand.
# Figures are named in devices/predict/roofline.py; each is [value, source].
"""


def main() -> None:
    rows, _ = public_rows(facts_folder())
    by_set = cases_by_set(rows)
    found = {}
    for name, prior in priors().items():
        values = {key: value for key, (value, _) in prior.items() if key != "runtime_mb"}
        validated = validate(by_set[name], values) if name in by_set else None
        found[name] = plain(efficiencies(name, prior, validated))
        print(f"{name}: {len(by_set.get(name, []))} rows", flush=True)
    with atomic_path(SHIPPED) as temporary:
        temporary.write_text(HEAD + yaml.safe_dump(found, sort_keys=False, width=160), encoding="utf-8")


if __name__ == "__main__":
    main()
