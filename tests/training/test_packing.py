"""Small parameters packed into a vector: nothing is lost, and the steps taken are the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mixer_jax import models
from mixer_jax.training import Trainer
from mixer_jax.training.optimizer import OPTIMIZERS, is_entrywise, kernel_mask
from mixer_jax.training.packing import VECTORS, Packing
from support import make_config, make_dataset

ENTRYWISE = [name for name in OPTIMIZERS if name not in ("lamb", "lars", "muon")]


def trained(packed, **fields):
    """The state and the losses after ten steps."""
    config = make_config(batch_size=16, model__dropout_rate=0.1, ema_decay=0.9, **fields)
    trainer = Trainer(config, make_dataset(), jax.devices()[:2])
    if packed:
        params = models.param_shapes(trainer.model, trainer.functions.augment.input_shape)
        trainer.functions = dataclasses.replace(trainer.functions, packing=Packing(params))
        trainer.programs = trainer.compiled(trainer.functions)
    state, metrics = trainer.train(trainer.init(), 0, 10)
    return jax.device_get(state), np.asarray(metrics["loss"])[:10]


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
@pytest.mark.parametrize("name", ENTRYWISE)
def test_the_same_steps_are_taken(name, clip_norm):
    fields = {"optimizer__name": name, "optimizer__clip_norm": clip_norm, "optimizer__weight_decay": 0.01}
    (state, losses), (packed_state, packed_losses) = trained(False, **fields), trained(True, **fields)
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(packed_losses, losses, rtol=1e-4)
    assert jax.tree.structure(packed_state) == jax.tree.structure(state)
    # Adam divides by what may be rounding alone: the bias after the token mixing has no gradient but that.
    params, others = (jax.tree.leaves(s.params) for s in (packed_state, state))
    assert np.mean([np.abs(a - b).mean() for a, b in zip(params, others, strict=True)]) < 1e-4


def test_only_matrices_stay_by_themselves_and_unpacking_undoes_it():
    model = models.MlpMixer(10, 3, 4, 8, 8, 8)
    params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    packing = Packing(params)
    state = optax.adamw(1e-3).init(params)
    for tree in (params, state, (), {"head": params["head"]}):
        unpacked = packing.unpack(packing.pack(tree))
        assert jax.tree.structure(unpacked) == jax.tree.structure(tree)
        jax.tree.map(np.testing.assert_array_equal, unpacked, tree)
    packed = packing.pack(params)
    assert all(x.ndim > 1 for key, layer in packed.items() if key != VECTORS for x in jax.tree.leaves(layer))
    assert packed[VECTORS].ndim == 1
    assert kernel_mask(packed)[VECTORS] is False  # weight decay is for matrices


def test_which_optimisers_know_one_array_from_another():
    config = make_config().optimizer
    for name in OPTIMIZERS:
        config.name = name
        assert is_entrywise(config) == (name in ENTRYWISE)
    config.name, config.layer_decay = "adamw", 0.9
    assert not is_entrywise(config)
