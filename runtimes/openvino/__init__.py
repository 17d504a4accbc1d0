"""OpenVINO: CPU, GPU and NPU."""
