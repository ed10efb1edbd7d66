"""Other projects: their weights, to and from ours; counterparts in PyTorch, for comparison, which alone need it."""
