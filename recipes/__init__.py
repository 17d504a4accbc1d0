"""Ready recipes, one per job, shipped in the wheel."""
