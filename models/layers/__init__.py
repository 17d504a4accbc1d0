"""Layers that several families share: attention blocks, MLPs, patch embeddings."""
