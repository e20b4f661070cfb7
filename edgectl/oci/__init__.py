"""OCI registries and layouts: references, descriptors, the two stores, image assembly."""
