"""Edge deployment and compression for remote-sensing foundation models.

OpenVINO's and NNCF's usage statistics stay off: they would go to Google Analytics, and each message forks the whole process.
"""

import sys
from typing import Any

__version__ = "0.1.0"

_modules: dict[str, Any] = sys.modules
# What both do where the package is not installed: their own empty stand-ins.
_modules.setdefault("openvino_telemetry", None)
