"""INT8: calibration, search, training under rounding, layers left in float, and when a model is good enough."""
