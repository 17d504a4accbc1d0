"""Bundles: manifest, signature, trust, opening and the golden vector."""
