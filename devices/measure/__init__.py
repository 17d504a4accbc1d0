"""Measured latency and memory, on this machine."""
