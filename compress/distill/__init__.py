"""Distillation: a teacher's outputs, taps, losses and the training loop."""
