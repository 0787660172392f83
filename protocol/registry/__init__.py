"""OCI distribution: references, platforms, documents, and the client of a registry."""
