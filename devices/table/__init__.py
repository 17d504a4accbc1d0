"""One model on many targets, in one table: measured here, as its bundle recorded it, or predicted."""
