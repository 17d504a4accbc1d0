"""What flies: sessions over inference runtimes, bundles, scene inference. Imports no torch."""

from rsedge.runtimes.bundle.golden import GoldenResult
from rsedge.runtimes.bundle.manifest import FileEntry, Golden, Manifest, Target
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.session import Session

__all__ = ["Bundle", "FileEntry", "Golden", "GoldenResult", "Manifest", "Session", "Target", "open_session"]
