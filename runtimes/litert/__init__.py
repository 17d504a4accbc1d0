"""LiteRT (TensorFlow Lite): Arm boards, by XNNPACK on the CPU."""
