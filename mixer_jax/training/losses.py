"""The training loss."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy against smoothed one-hot labels, as torch's `CrossEntropyLoss(label_smoothing)`.

    Args:
      logits: (batch, num_classes) float32.
      labels: (batch,) int.
      label_smoothing: the share of the probability that is spread evenly over all classes.

    Returns:
      The loss of each example, (batch,).
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)
