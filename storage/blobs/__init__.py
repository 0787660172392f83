"""The backend of content: one file, or one engine value, for each digest of the whole store."""
