"""A process with a share of the clients: does their steps, measures, and remembers what was acknowledged."""
