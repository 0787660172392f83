"""What happens: one actor per resource domain, the storage actor, the collector, and their supervisor."""
