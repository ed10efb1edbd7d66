"""MLP-Mixer in JAX and Flax: `mixer_jax.models` to use the model, `python -m mixer_jax.train` to train it."""

import gc
import sys

__version__ = "0.1.0"

# While Python looks for the NAME of `python -m mixer_jax.NAME`; not in a program that imports this package.
if sys.argv[:1] == ["-m"] and sys.orig_argv[sys.orig_argv.index("-m") + 1].startswith(f"{__name__}."):
    gc.disable()  # until `cli.run`: while JAX is imported it would go through everything again and again
