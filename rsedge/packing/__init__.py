"""A folder that flies: a bundle with the files that its runtime needs, and nothing else."""
