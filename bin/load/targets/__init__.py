"""Those to whom a scenario is done."""
