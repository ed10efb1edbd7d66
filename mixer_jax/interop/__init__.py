"""Counterparts in PyTorch, for comparison; the rest of the project does not need them, nor PyTorch."""
