"""A run logged to MLflow or TensorBoard while it goes on. A log that cannot be written is said once, and ends no run."""
