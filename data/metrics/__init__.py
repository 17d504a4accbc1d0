"""Metrics, their evidence and the verdicts on them."""
