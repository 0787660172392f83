"""What a person starts: leads the workers through a run, shows it, and puts its result together."""
