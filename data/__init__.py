"""Bands, scenes, splits, augmentation and metrics. Imports no torch: part of it flies."""
