"""Mission budgets: scenes per orbit, square kilometres per flight."""
