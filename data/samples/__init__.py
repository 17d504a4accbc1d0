"""Sets of samples of one shape, and their training views."""
