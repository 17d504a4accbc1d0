"""A recipe searched over: which students, widths, ratios and losses are worth having, told before the test set is looked at."""
