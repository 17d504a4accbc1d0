"""Stages of recipes of several parts: the table of them is in :mod:`.table`."""
