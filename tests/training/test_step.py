"""Steps that are taken otherwise: with the trunk frozen, and sharpness-aware, against JAX's own gradients and optax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mixer_jax.training import Trainer
from support import make_config, make_dataset

SGD = {"optimizer__name": "sgd", "optimizer__learning_rate": 0.3, "model__zero_init_head": False}


def trained(num_steps, num_devices=1, **fields):
    """The trainer, the parameters at first, the state at last, and the images and labels of each step."""
    trainer = Trainer(make_config(batch_size=16, **fields), make_dataset(), jax.devices()[:num_devices])
    state = trainer.init()
    first = jax.device_get(state.params)
    batches = trainer.sampler.batches(0, num_steps)["indices"]
    state, _ = trainer.train(state, 0, num_steps)
    train = trainer.dataset.train
    images = ((train.images / 255 - 0.4) / 0.3).astype(np.float32)
    return trainer, first, jax.device_get(state), [(images[batch], train.labels[batch]) for batch in batches]


def loss_of(trainer):
    def loss(params, images, labels):
        log_p = jax.nn.log_softmax(trainer.model.apply({"params": params}, images))
        return -log_p[jnp.arange(len(labels)), labels].mean()

    return loss


def close(some, others, tolerance=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), some, others)


def test_with_a_frozen_trunk_the_head_alone_learns():
    trainer, first, last, batches = trained(3, frozen_trunk=True, schedule__name="constant", **SGD)
    features = lambda images: trainer.model.clone(num_classes=0).apply({"params": first}, images)  # noqa: E731
    kernel, bias = (np.array(first["head"][name]) for name in ("kernel", "bias"))
    for images, labels in batches:  # logistic regression in NumPy
        x = np.asarray(features(images))
        logits = x @ kernel + bias
        p = np.exp(logits - logits.max(1, keepdims=True))
        error = (p / p.sum(1, keepdims=True) - np.eye(10)[labels]) / len(labels)
        kernel, bias = kernel - 0.3 * x.T @ error, bias - 0.3 * error.sum(0)
    close(last.params["head"], {"kernel": kernel, "bias": bias}, 1e-5)
    assert np.abs(kernel - first["head"]["kernel"]).max() > 1e-3
    for name in first.keys() - {"head"}:
        jax.tree.map(np.testing.assert_array_equal, first[name], last.params[name])


@pytest.mark.parametrize("fields", [{}, {"accumulation_steps": 2}, {"optimizer__clip_norm": 1e-3}])
def test_the_gradient_norm_is_that_before_clipping(fields):
    config = make_config(batch_size=16, **SGD, **fields)
    trainer = Trainer(config, make_dataset(), jax.devices()[:2])
    state = trainer.init()
    params, [indices] = jax.device_get(state.params), trainer.sampler.batches(0, 1)["indices"]
    train = trainer.dataset.train
    images = ((train.images[indices] / 255 - 0.4) / 0.3).astype(np.float32)
    gradient = jax.grad(loss_of(trainer))(params, images, train.labels[indices])
    norm = np.sqrt(sum(np.square(x, dtype=np.float64).sum() for x in jax.tree.leaves(jax.device_get(gradient))))
    _, metrics = trainer.train(state, 0, 1)
    assert float(metrics["gradient_norm"][0]) == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize(("num_devices", "accumulation_steps"), [(1, 1), (2, 2)])
def test_the_loss_and_the_correct_predictions_are_numpys(num_devices, accumulation_steps):
    """The label of a mixed example is the class of which it has the most."""
    mixing = {"augment__mixing__mixup_alpha": 1.0, "augment__mixing__cutmix_alpha": 1.0, "label_smoothing": 0.1}
    config = make_config(batch_size=16, accumulation_steps=accumulation_steps, **mixing, **SGD)
    trainer = Trainer(config, make_dataset(), jax.devices()[:num_devices])
    state, train, all_correct, mixed = trainer.init(), trainer.dataset.train, [], 0
    for step in range(6):
        params = jax.device_get(state.params)
        batch = {key: x[0] for key, x in trainer.sampler.batches(step, 1).items()}
        batch |= {"images": train.images[batch["indices"]], "labels": train.labels[batch["indices"]]}
        predecessors = functools.partial(jax.tree.map, lambda x: jnp.roll(x, 1, axis=0))
        images, targets = trainer.functions.augment.train(config.seed, step, batch, np.arange(16), predecessors)
        logits = np.asarray(trainer.model.apply({"params": params}, images))
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        loss = -np.sum((0.9 * np.asarray(targets) + 0.01) * log_p, 1).mean()
        correct = int(np.sum(np.argmax(logits, 1) == np.argmax(targets, 1)))
        state, metrics = trainer.train(state, step, 1)
        assert float(metrics["loss"][0]) == pytest.approx(loss, rel=1e-4)
        assert int(metrics["correct"][0]) == correct
        all_correct.append(correct)
        mixed += np.any(np.count_nonzero(targets, axis=1) > 1)
    assert mixed >= 4
    assert 0 < sum(all_correct) < 6 * 16


def test_of_a_frozen_trunk_the_optimiser_keeps_nothing():
    config = {"optimizer__name": "adam", "ema_decay": 0.9}
    whole, probe = (Trainer(make_config(frozen_trunk=f, **config), make_dataset()).state_shapes for f in (False, True))
    assert len(jax.tree.leaves(probe.opt_state)) < len(jax.tree.leaves(whole.opt_state)) / 4
    assert jax.tree.structure(probe.params) == jax.tree.structure(whole.params)


@pytest.mark.parametrize(
    "fields", [{"num_devices": 2, "accumulation_steps": 2}, {"optimizer__clip_norm": 0.5}], ids=str
)
def test_sharpness_aware_steps_are_optaxs(fields):
    trainer, params, last, batches = trained(3, schedule__name="constant", optimizer__sam_rho=0.2, **SGD, **fields)
    plain = optax.sgd(0.3)
    if clip := fields.get("optimizer__clip_norm"):
        plain = optax.chain(optax.clip_by_global_norm(clip), plain)
    uphill = optax.chain(optax.contrib.normalize(), optax.sgd(0.2))
    sam = optax.contrib.sam(plain, uphill, opaque_mode=True, reset_state=False)
    state, loss = sam.init(params), loss_of(trainer)
    for batch in batches:
        gradient = jax.jit(jax.grad(loss))
        updates, state = sam.update(gradient(params, *batch), state, params, grad_fn=lambda p, _: gradient(p, *batch))  # noqa: B023
        params = optax.apply_updates(params, updates)
    close(last.params, params, 1e-5)
    differ = jax.tree.map(lambda a, b: np.abs(a - b).max(), last.params, trained(3, **SGD)[2].params)
    assert max(jax.tree.leaves(differ)) > 1e-3
