"""What flies: sessions over inference runtimes, bundles, scene inference. Imports no torch."""

from rsedge.runtimes.bundle import Bundle, GoldenResult
from rsedge.runtimes.manifest import FileEntry, Golden, Manifest, Target
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.session import Session

__all__ = ["Bundle", "FileEntry", "Golden", "GoldenResult", "Manifest", "Session", "Target", "open_session"]
