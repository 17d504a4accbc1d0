"""Runs a recipe: the stages in order, and the run in miniature before it."""
