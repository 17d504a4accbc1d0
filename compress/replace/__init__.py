"""Parts of a network replaced by faster ones."""
