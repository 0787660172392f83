"""What is said: errors, identifiers, records and messages, the wire, client and server."""
