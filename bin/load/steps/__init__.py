"""What clients do, decided by the scenario and one seed."""
