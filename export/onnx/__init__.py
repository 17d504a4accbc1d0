"""The deployable graph: torch to ONNX, its batch, opset and precision."""
