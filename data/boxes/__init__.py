"""Boxes around objects: files, geometry, sets and views."""
