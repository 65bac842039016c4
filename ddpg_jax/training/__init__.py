"""A run: its options, its folder, and the loop on the host that trains the agents."""
