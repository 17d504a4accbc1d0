"""The Intel Myriad as a backend: devices of OpenVINO that only its release 2022.3 knows, which runs as a child process."""

from __future__ import annotations

from rsedge.runtimes.backend import Engine, Opening, RuntimeBackend, StandIn
from rsedge.runtimes.checked import Model
from rsedge.runtimes.myriad.process import VARIABLE, VERSION, OpenVino2022Session, need_environment
from rsedge.runtimes.session import Session

OWN = "MYRIAD"
ON_VPU = Engine("myriad", "OpenVINO 2022.3 on the VPU")
ON_CPU = Engine("myriad-cpu", "OpenVINO 2022.3 on the CPU", frozenset({"threads"}))


class MyriadBackend(RuntimeBackend):
    """IR of OpenVINO 2022.3; where there is no VPU, that release's CPU plugin gives the numbers."""

    name = "myriad"
    runtime = "openvino"
    title = f"OpenVINO {VERSION}"
    suffixes = (".xml", ".onnx")
    own_process = True
    ships_build = True
    threads = True
    engines = (ON_VPU, ON_CPU)
    no_build = "OpenVINO 2022.3 compiles it at each start"
    readme = (
        f"The IR is OpenVINO {VERSION}'s, the last release that knows the VPU. To run it, install that release's archive and set\n"
        f"{VARIABLE} to its Python. For a program of your own, sh build.sh FOLDER makes model.blob.\n\n"
    )

    def takes(self, device: str) -> bool:
        return bool({"myriad", "vpu"} & set(device.lower().split("-")))

    def device(self, device: str) -> str:
        return OWN

    def check(self, precision: str) -> None:
        need_environment()

    def engine(self, device: str, asked: str | None, built: bool) -> Engine:
        return ON_CPU if (asked or OWN).upper() == "CPU" else ON_VPU

    def open(self, model: Model, how: Opening) -> Session:
        return OpenVino2022Session(model, how.input_spec, how.device, how.precision, how.threads)

    def here(self, device: str, precision: str) -> StandIn:
        words = "IR of OpenVINO 2022.3.2 on that release's CPU plugin (fp16 weights, f32 arithmetic), not on the VPU"
        return StandIn(self.name, "CPU", precision, words)

    def golden(self, device: str, precision: str) -> StandIn:
        return self.here(device, precision)

    def check_device(self, device: str) -> str | None:
        return "CPU"

    def check_note(self) -> str | None:
        return "checked on the CPU plugin of OpenVINO 2022.3.2, not on the VPU"


BACKEND = MyriadBackend()
