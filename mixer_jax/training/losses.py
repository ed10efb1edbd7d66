"""The training loss."""

import jax
import optax


def cross_entropy(logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Return the softmax cross-entropy against smoothed targets, like torch's `CrossEntropyLoss(label_smoothing)`.

    Args:
      logits: (batch, num_classes) float32.
      targets: (batch, num_classes) float32, the probability of each class.
      label_smoothing: the part of the probability that is spread evenly over all classes.

    Returns:
      The loss of each example in nats, (batch,) float32.
    """
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))
