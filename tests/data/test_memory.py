"""What does not fit into memory is refused before it is allocated."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsedge.data.errors import MissingCapability
from rsedge.data.memory import check_memory


def test_more_than_the_machine_has_is_refused() -> None:
    check_memory(1 << 20, Path("s.tif"))
    with pytest.raises(MissingCapability, match=r"s\.tif: .* GB would have to be read at once"):
        check_memory(1 << 60, Path("s.tif"))
