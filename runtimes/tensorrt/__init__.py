"""TensorRT: engines built and run on the device."""
