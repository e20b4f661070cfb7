"""Plan: what to do so that the registry says what the manifests say. Pure, apart from `observe`."""
