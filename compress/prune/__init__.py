"""Structured pruning: channel groups, their importance, plans, cuts and what is fitted anew after them."""
