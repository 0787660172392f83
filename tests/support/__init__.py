"""What the tests stand on: registries that run here and registries that misbehave on purpose."""
