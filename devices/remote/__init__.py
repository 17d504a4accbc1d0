"""Measuring and calibrating on a device over SSH."""
