"""A page as PDF, printed by a Chromium that is installed here: no other way prints what a browser shows."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from rsedge.data.errors import MissingCapability
from rsedge.data.files import write_bytes, writing
from rsedge.data.temporary import TemporaryFolder

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
    "microsoft-edge",
)
VARIABLE = "RSEDGE_BROWSER"
"""Names a browser that is not on the path."""
SECONDS = 180.0


def find_browser() -> str:
    """A browser of the Chromium family.

    Raises:
        MissingCapability: there is none.
    """
    given = os.environ.get(VARIABLE)
    found = next((path for name in ([given] if given else BROWSERS) if (path := shutil.which(name))), None)
    if found is None:
        asked = f"{VARIABLE}={given} is no program" if given else f"none of {', '.join(BROWSERS)} is on the path"
        raise MissingCapability(
            f"printing a report as PDF needs Chromium: {asked}. Install it (Debian: apt-get install chromium), or name one by "
            f"{VARIABLE}"
        )
    return found


def write_pdf(html: Path, path: Path) -> None:
    """Prints a page to ``path``, atomically; its folder is made where it is not there.

    Raises:
        RequestError: it cannot be written there. MissingCapability: no browser is here, it does not print, or there is no room.
    """
    browser = find_browser()
    # On the disk of the file, where a browser in a sandbox may write, too; a folder that is to be made waits for the print.
    there = next(place for place in path.absolute().parents if place.is_dir())
    with contextlib.ExitStack() as stack:
        with writing(path):
            folder = stack.enter_context(TemporaryFolder(there))
        made = folder / "page.pdf"
        _print(browser, html, made, folder)
        write_bytes(path, made.read_bytes())


def _print(browser: str, html: Path, made: Path, folder: Path) -> None:
    # Chromium's sandbox does not start for root; the page's policy lets no script in but our own.
    alone = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    command = [
        browser, "--headless", "--disable-gpu", "--no-first-run", "--no-pdf-header-footer", *alone,
        f"--user-data-dir={folder / 'profile'}", f"--print-to-pdf={made.absolute()}", html.absolute().as_uri(),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingCapability(f"{browser} did not print {html}: {error}") from error
    if done.returncode != 0 or not made.is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MissingCapability(f"{browser} did not print {html} (exit code {done.returncode}): {last}")
