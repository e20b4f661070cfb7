"""Inference engines and image/tensor transforms. Needs numpy and one engine only."""
