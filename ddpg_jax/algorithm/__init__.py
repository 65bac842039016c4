"""Algorithm 1 of the paper, lines 1 to 15; imports nothing of the package outside this folder."""
