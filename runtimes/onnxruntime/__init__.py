"""ONNX Runtime: CPU, CUDA and XNNPACK."""
