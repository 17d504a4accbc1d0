"""What makes the model files of targets: one module a backend, found by :mod:`rsedge.stages.makers.registry`."""
