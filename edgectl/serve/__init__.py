"""The on-device inference server."""
