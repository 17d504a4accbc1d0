"""Rasters and scenes: reading, bands, units, labels, splits and training views."""
