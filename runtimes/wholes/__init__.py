"""What runs between the parts of a network: a row of :mod:`.table` and a module each."""
