"""Predicted latency, memory and energy, and the calibration they rest on."""
