"""GitOps for edge AI: versioned manifests in, verified models on unlike devices out."""

__version__ = "0.1.0"
