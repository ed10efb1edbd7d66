"""What the benchmark command measures: our steps, PyTorch's, the augmentation, and how they are measured in turns."""
