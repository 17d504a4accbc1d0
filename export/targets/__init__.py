"""What each runtime is given: IR, typed ONNX, Myriad files, language models."""
