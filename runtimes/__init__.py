"""What flies: sessions over inference runtimes, bundles, scene inference. Imports no torch."""

from rsedge.runtimes.bundle import Bundle, GoldenResult
from rsedge.runtimes.manifest import FileEntry, Golden, Manifest, Target
from rsedge.runtimes.session import Session, open_session

__all__ = ["Bundle", "FileEntry", "Golden", "GoldenResult", "Manifest", "Session", "Target", "open_session"]
