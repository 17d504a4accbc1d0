"""Where a run's results come from, for its report: recipe, seed, commit, hashes, key; and the report's files."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
from pathlib import Path

from rsedge.cache.run_folder import RunFolder
from rsedge.cache.stage import Results
from rsedge.data.files import sha256_file
from rsedge.recipe.reading import AnyRecipe, resolved_text
from rsedge.reports.assets import ReportAssets
from rsedge.reports.html import write_html
from rsedge.reports.markdown import write_markdown
from rsedge.reports.schema import Origin, Report, save_report
from rsedge.runtimes.bundle.manifest import MANIFEST, PUBLIC_KEY
from rsedge.runtimes.bundle.trust import fingerprint, load_public_key

GIT_SECONDS = 5.0


def publish(run: RunFolder, report: Report, assets: ReportAssets) -> None:
    """Writes the record, the page and its text."""
    save_report(report, run.report_json)
    write_html(report, run.report_html, assets)
    write_markdown(report, run.report_markdown)


def origin_of(run: RunFolder, recipe: AnyRecipe, results: Results) -> Origin:
    """Of a run whose stages are done."""
    text = resolved_text(recipe)
    bundles = {name: run.bundles / name for name in recipe.targets if (run.bundles / name / MANIFEST).is_file()}
    return Origin(
        recipe=text,
        recipe_sha256=hashlib.sha256(text.encode()).hexdigest(),
        seed=recipe.seed,
        commit=commit(),
        stages={name: result.digest for name, result in results.items()},
        bundles={name: sha256_file(folder / MANIFEST) for name, folder in bundles.items()},
        key=_key(list(bundles.values())),
    )


def _key(bundles: list[Path]) -> str | None:
    """Of the key that signed them: one signs all of a run."""
    found = (folder / PUBLIC_KEY for folder in bundles)
    return next((fingerprint(load_public_key(path)) for path in found if path.is_file()), None)


def commit() -> str | None:
    """The commit that this package is of: as pip recorded it, or of the repository that its files are tracked in."""
    try:
        recorded = importlib.metadata.distribution("rsedge").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        recorded = None
    if recorded and (vcs := json.loads(recorded).get("vcs_info")):
        return str(vcs["commit_id"])
    here = Path(__file__)
    if _git(here, "ls-files", "--error-unmatch", here.name) is None:
        return None
    found, changed = _git(here, "rev-parse", "HEAD"), _git(here, "status", "--porcelain", "--untracked-files=no", ":/")
    return f"{found} with changes" if found and changed else found


def _git(file: Path, *words: str) -> str | None:
    """What git says in the folder of a file; None where there is no git, no repository, or it refuses."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(file.parent), *words],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
