"""Keys, cosign-format signatures, attestations, and the TUF release repository."""
