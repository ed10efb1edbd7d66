"""MLP-Mixer in JAX and Flax: `mixer_jax.models` to use the model, `python -m mixer_jax.train` to train it."""

__version__ = "0.1.0"
