"""The recipe: its sections, how it is read and written, and what can be said of it before any work. Imports no torch."""
