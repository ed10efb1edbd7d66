"""The compiled steps: the same numbers on any number of devices, every test image counted once."""

import functools
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mixer_jax.data import Split
from mixer_jax.errors import UserError
from mixer_jax.training import Trainer, check_epochs
from mixer_jax.training import trainer as trainer_module
from mixer_jax.training.parallel import microbatches
from mixer_jax.training.seeds import SeedGroup, SideBySide
from mixer_jax.training.setup import create_functions
from support import make_config, make_dataset, streamed

# All that is random but for RandAugment, which takes long to compile and has its own test on several devices.
EVERYTHING = {
    "augment__crop": "pad", "augment__crop_padding": 1, "augment__flip": "random", "augment__erasing__probability": 0.5,
    "augment__mixing__mixup_alpha": 1.0, "augment__mixing__cutmix_alpha": 1.0, "model__dropout_rate": 0.2,
    "model__stochastic_depth_rate": 0.5, "ema_decay": 0.9,
}  # fmt: skip

SGD = {"optimizer__name": "sgd", "optimizer__learning_rate": 0.1, "model__zero_init_head": False}


@functools.cache
def losses(num_devices, num_steps=12, per_dispatch=5, streaming=False, **fields):
    """The loss of each step, and the parameters after the last."""
    config = make_config(batch_size=16, **fields)
    dataset = streamed(make_dataset()) if streaming else make_dataset()
    trainer = Trainer(config, dataset, jax.devices()[:num_devices])
    per_dispatch = min(per_dispatch, trainer.max_steps)
    state = trainer.init()
    result = []
    for step in range(0, num_steps, per_dispatch):
        n = min(per_dispatch, num_steps - step)
        state, metrics = trainer.train(state, step, n)
        result.extend(np.asarray(metrics["loss"])[:n])
    return np.array(result), jax.device_get(state.params)


@pytest.mark.parametrize(
    "fields",
    [{}, EVERYTHING],
    ids=["plain", "random and augmented"],
)
def test_one_two_and_four_devices_give_the_same_losses(fields):
    one, params = losses(1, **fields)
    assert fields or one[-1] < one[0]
    for num_devices in (4,) if fields else (2, 4):
        many, many_params = losses(num_devices, **fields)
        np.testing.assert_allclose(many, one, rtol=2e-4)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), many_params, params)


@pytest.mark.parametrize("fields", [{}, EVERYTHING], ids=["plain", "random and augmented"])
def test_a_batch_in_parts_gives_the_same_losses(fields):
    whole, _ = losses(2, accumulation_steps=1, **fields)
    parts, _ = losses(2, accumulation_steps=4, **fields)
    np.testing.assert_allclose(parts, whole, rtol=2e-4)


@pytest.mark.parametrize(
    ("batch_size", "num_devices", "fields", "parts"),
    [
        (128, 1, {}, 1),
        (128, 1, {"channels_mlp_dim": 1 << 15}, 16),  # half a MiB an image, of which 14 fit, and 8 go evenly
        (128, 2, {"channels_mlp_dim": 1 << 15}, 8),
        (128, 1, {"channels_mlp_dim": 1 << 20}, 32),
        (127, 1, {"channels_mlp_dim": 1 << 20}, 1),  # a prime has no parts
    ],
)
def test_the_parts_of_a_batch_fit_the_cache(batch_size, num_devices, fields, parts):
    fields = {f"model__{key}": value for key, value in fields.items()}
    config = make_config(batch_size=batch_size, model__num_blocks=1, **fields)
    assert Trainer(config, make_dataset(), jax.devices()[:num_devices]).functions.accumulation_steps == parts


@pytest.mark.parametrize(
    ("num_images", "megabytes", "parts"),
    [(128, 0.1, 1), (512, 0.125, 2), (128, 1.2, 4), (64, 100, 8), (100, 1.2, 1), (120, 1.2, 3)],
)
def test_the_parts_of_a_batch_fit_the_vector_memory_of_a_tpu(num_images, megabytes, parts):
    widest = int(megabytes * 2**20)
    assert microbatches("TPU v5 lite", num_images, widest) == microbatches("TPU v6 lite", num_images, widest) == parts
    assert microbatches("NVIDIA H100", num_images, widest) == 1


@pytest.mark.parametrize(("num_seeds", "parts"), [(1, 1), (2, 2), (8, 8)])
def test_all_seeds_share_the_vector_memory_of_a_tpu(num_seeds, parts):
    tpu = SimpleNamespace(platform="tpu", device_kind="TPU v5 lite")
    parallel = SimpleNamespace(devices=[tpu])
    # An image takes a quarter of a MiB in bfloat16; of 224, 112 and 28 that fit, 128, 64 and 16 go evenly.
    config = make_config(batch_size=128, num_seeds=num_seeds, model__channels_mlp_dim=1 << 15, dtype="bfloat16")
    functions = create_functions(config, make_dataset(), parallel, lambda step: 0.1, 1)
    assert functions.accumulation_steps == parts


def test_the_length_of_a_dispatch_changes_nothing():
    together, params = losses(1, per_dispatch=12, model__dropout_rate=0.2)
    single, single_params = losses(1, per_dispatch=1, model__dropout_rate=0.2)
    assert np.array_equal(together, single)
    jax.tree.map(np.testing.assert_array_equal, params, single_params)


def test_streamed_or_resident_changes_nothing():
    resident, params = losses(4, **EVERYTHING)
    streaming, streaming_params = losses(4, streaming=True, **EVERYTHING)
    assert np.array_equal(resident, streaming)
    jax.tree.map(np.testing.assert_array_equal, params, streaming_params)


def test_the_seed_is_all_that_randomness_depends_on():
    first, again, other = losses(1)[0], losses.__wrapped__(1)[0], losses(1, seed=1)[0]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_first_loss_and_gradient_step_equal_flax_and_numpy(smoothing):
    trainer = Trainer(
        make_config(batch_size=16, label_smoothing=smoothing, **SGD),
        make_dataset(),
        jax.devices()[:2],
    )
    state = trainer.init()
    before = jax.device_get(state.params)
    indices = trainer.sampler.batches(0, 1)["indices"][0]
    images = (trainer.dataset.train.images[indices] / 255 - 0.4) / 0.3
    labels = trainer.dataset.train.labels[indices]

    def loss(params):
        log_p = jax.nn.log_softmax(trainer.model.apply({"params": params}, images.astype(np.float32)))
        return -((smoothing / 10 + (1 - smoothing) * np.eye(10)[labels]) * log_p).sum(-1).mean()

    value, gradient = jax.value_and_grad(loss)(before)
    state, metrics = trainer.train(state, 0, 1)
    np.testing.assert_allclose(metrics["loss"][0], value, rtol=1e-5)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, before, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), jax.device_get(state.params), expected)


@pytest.fixture(scope="module")
def ten_thousand():
    """10,000 tiny images, and how a model with a random head scores them by plain Flax."""
    dataset = make_dataset(num_test=10_000, size=4)
    config = make_config(model__patch_size=2, model__num_blocks=1, model__zero_init_head=False)
    trainer = Trainer(config, dataset)
    params = trainer.init().params
    logits = trainer.model.apply({"params": params}, ((dataset.test.images / 255 - 0.4) / 0.3).astype(np.float32))
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    labels = dataset.test.labels
    return dataset, params, (log_p.argmax(-1) == labels).sum(), -log_p[np.arange(10_000), labels].mean()


@pytest.mark.parametrize("batch_size", [1, 7, 512])
@pytest.mark.parametrize("num_devices", [1, 2, 4])
def test_evaluation_counts_all_of_10000_images(ten_thousand, batch_size, num_devices):
    dataset, params, correct, loss = ten_thousand
    config = make_config(
        model__patch_size=2, model__num_blocks=1, model__zero_init_head=False, eval_batch_size=batch_size
    )
    trainer = Trainer(config, dataset, jax.devices()[:num_devices])
    scores = trainer.evaluate(trainer.parallel.replicate(params), dataset.test)
    assert scores.examples == 10_000
    assert scores.correct == correct
    assert scores.accuracy == pytest.approx(100 * correct / 10_000)
    np.testing.assert_allclose(scores.loss, loss, rtol=1e-4)


def test_bfloat16_trains_with_float32_parameters():
    values, params = losses(1, dtype="bfloat16")
    assert values[-1] < values[0]
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype("float32")}
    assert not np.array_equal(values, losses(1)[0])


@pytest.mark.parametrize(
    ("fields", "num_devices", "message"),
    [
        ({"batch_size": 18}, 4, "config.batch_size=18 is not divisible by 4 devices"),
        ({"batch_size": 24, "accumulation_steps": 4}, 4, "not divisible by 4 devices times 4 accumulation_steps"),
        ({"model__variant": "Nano/3", "model__patch_size": 3}, 1, "image size 8x8 is not divisible by patch size 3"),
        ({"optimizer__name": "adm"}, 1, "unknown config.optimizer.name 'adm'"),
        ({"schedule__name": "cos"}, 1, "unknown config.schedule.name 'cos'"),
    ],
)
def test_mistakes_are_found_before_anything_is_compiled(fields, num_devices, message):
    with pytest.raises(UserError, match=message):
        Trainer(make_config(**fields), make_dataset(), jax.devices()[:num_devices])


@pytest.mark.parametrize(("batch_size", "epochs", "good"), [
    (64, 2.0, True), (512, 1.0, True), (512, 12.0, False), (16, 1.1, False), (16, 1.3, True), (16, 0.005, False),
])  # fmt: skip
def test_every_epoch_has_a_step_of_its_own(batch_size, epochs, good):
    trainer = Trainer(make_config(batch_size=batch_size, epochs=epochs), make_dataset())
    ends = [trainer.sampler.steps_in(min(epoch, epochs)) for epoch in range(math.ceil(epochs) + 1)]
    assert (len(set(ends)) == len(ends)) == good
    if good:
        return check_epochs(trainer)
    with pytest.raises(
        UserError,
        match=f"config.epochs={epochs:g} of 50 images in batches of {batch_size}: some epoch would have no",
    ):
        check_epochs(trainer)


def test_labels_of_padding_do_not_count():
    dataset = make_dataset(num_test=3)
    everything = Split(dataset.test.images, np.zeros(3, np.int32))
    trainer = Trainer(make_config(eval_batch_size=512), dataset, jax.devices()[:4])
    state = trainer.init()  # a zero head: every prediction is class 0
    scores = trainer.evaluate(state.params, everything)
    assert scores.accuracy == 100.0
    assert scores.loss == pytest.approx(np.log(10))


@pytest.mark.parametrize("how", ["in memory", "streamed", "bfloat16"])
def test_predictions_are_float32_of_every_example_in_order(how, monkeypatch):
    dataset = make_dataset(num_test=75)
    fields = {"dtype": "bfloat16"} if how == "bfloat16" else {}
    config = make_config(eval_batch_size=16, model__zero_init_head=False, **fields)
    trainer = Trainer(config, streamed(dataset) if how == "streamed" else dataset)
    monkeypatch.setattr(trainer_module, "MOST_LOGITS", 16 * 10 * 2)  # two batches a dispatch
    state = trainer.init()
    logits, labels = trainer.predict(state.evaluated, trainer.dataset.test)
    assert np.array_equal(labels, dataset.test.labels)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected_logits(trainer, state, dataset), atol=1e-5)


def expected_logits(trainer, state, dataset):
    """The test images' logits, by Flax alone."""
    model, augment = trainer.model.clone(dtype=np.float32), trainer.functions.augment
    return model.apply({"params": jax.device_get(state.evaluated)}, augment.evaluate(dataset.test.images))


@pytest.mark.parametrize("side_by_side", [False, True], ids=["on cores", "side by side"])
def test_predictions_of_three_seeds_are_each_its_own(side_by_side, monkeypatch):
    dataset = make_dataset(num_test=75)
    config = make_config(eval_batch_size=16, model__zero_init_head=False, num_seeds=3)
    monkeypatch.setattr(trainer_module, "MOST_LOGITS", 16 * 10 * 2)
    group = SeedGroup(Trainer(config, dataset), range(3))
    if side_by_side:
        group._run_together = SideBySide(Trainer(config, dataset), 3).run
    states = [trainer.init() for trainer in group.trainers]

    def function(trainer, state):
        return lambda: trainer.predict(state.evaluated, dataset.test)

    for trainer, state, predictions in zip(
        group.trainers, states, group.run(list(map(function, group.trainers, states))), strict=True
    ):
        logits, labels = predictions
        assert np.array_equal(labels, dataset.test.labels)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected_logits(trainer, state, dataset), atol=1e-5)
