"""Measurements of the benchmark command: training steps here and in PyTorch, augmentation, and compiled programs."""
