"""What algorithms with action values share: settings, networks, losses, one gradient step. Loads no torch."""
