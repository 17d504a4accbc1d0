"""A bundle as a service: one thread that owns the model, and what asks it: HTTP, or a watched folder."""
