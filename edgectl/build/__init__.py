"""Toolchain environments, the builder protocol, evaluation, gates and packaging."""
