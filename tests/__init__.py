UNTUNED = {"max_probes": 0, "max_tunings": 0, "float_precision": "f32"}
"""Of ``steps.quantize``: no figures of layers and no steps for speed, in runs that are about something else."""
