"""Image-text sets."""
