"""The exponential moving average of the parameters: NumPy's numbers, and what is evaluated."""

import jax
import numpy as np
import pytest

from mixer_jax.training import Trainer
from support import make_config, make_dataset


def trained(num_steps, **fields):
    """A trainer, and its states after each step."""
    trainer = Trainer(make_config(batch_size=16, epochs=20.0, **fields), make_dataset(), jax.devices()[:2])
    state = trainer.init()
    states = [jax.device_get(state)]
    for step in range(num_steps):
        state, _ = trainer.train(state, step, 1)
        states.append(jax.device_get(state))
    return trainer, states


def test_the_average_is_numpys():
    _, states = trained(30, ema_decay=0.7)
    expected = states[0].params
    for step, state in enumerate(states[1:]):
        decay = min(0.7, (1 + step) / (10 + step))
        expected = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * p, expected, state.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.ema_params, expected)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(*map(jax.tree.leaves, (expected, state.params)), strict=True))


def test_the_average_changes_nothing_about_training():
    _, with_it = trained(5, ema_decay=0.9)
    _, without = trained(5)
    jax.tree.map(np.testing.assert_array_equal, with_it[-1].params, without[-1].params)
    assert without[-1].ema_params == ()


@pytest.mark.parametrize("decay", [0.0, 0.95])
def test_what_is_evaluated(decay):
    trainer, states = trained(8, ema_decay=decay)
    params = states[-1].ema_params if decay else states[-1].params
    assert states[-1].evaluated is params
    dataset = trainer.dataset
    logits = trainer.model.apply({"params": params}, ((dataset.test.images / 255 - 0.4) / 0.3).astype(np.float32))
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    scores = trainer.evaluate(trainer.place(states[-1]).evaluated, dataset.test)
    np.testing.assert_allclose(scores.loss, -log_p[np.arange(len(dataset.test)), dataset.test.labels].mean(), 1e-4)
