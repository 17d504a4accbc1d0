"""Edge deployment and compression for remote-sensing foundation models."""

import os

from rsedge.quiet import keep_quiet

__version__ = "0.1.0"

# In a checkout the rooms lie beside this folder, which hides an installed package from whoever stands in the checkout's root.
_FOLDER = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - this file travels to devices and wants no more
if not os.path.isdir(os.path.join(_FOLDER, "runtimes")) and os.path.isdir(os.path.join(_FOLDER, "..", "runtimes")):  # noqa: PTH112, PTH118
    __path__.append(os.path.dirname(_FOLDER))  # noqa: PTH120

keep_quiet()
