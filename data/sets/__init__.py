"""Named sets of scenes and samples, and the doors to them."""
