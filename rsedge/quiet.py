"""Keeps what rsedge imports from sending anything home; runs before any of it is imported. Needs the standard library alone.

ONNX Runtime (1.29 and newer, official builds) writes a device id into the user's cache folder and looks up its telemetry host
when it is imported; only ``ORT_DISABLE_TELEMETRY``, read at that moment, keeps it from both. OpenVINO and NNCF would send usage
statistics to Google Analytics through ``openvino_telemetry``, and each message forks the whole process.
"""

import os
import sys

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # What terratorch brings asks the package registry for its newest version at import.
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Environment variables and what they are set to, for this process and its children."""


def keep_quiet() -> None:
    """Switches off what would be sent, whatever the environment says."""
    os.environ.update(SWITCHES)
    # OpenVINO and NNCF then do what they do where the package is not installed: they take empty stand-ins of their own.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
