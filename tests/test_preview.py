"""The preview command: a picture of the policy, over nothing but its own pictures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mixer_jax import preview
from mixer_jax.config_files import get_config
from mixer_jax.errors import UserError
from mixer_jax.reporting.augmented import augmented_batches, target_caption
from mixer_jax.training import Trainer
from support import ROOT, make_config, make_dataset

POLICY = [
    "--config.augment.crop=pad", "--config.augment.flip=alternating", "--config.augment.automatic=randaugment",
    "--config.augment.erasing.probability=0.5", "--config.augment.mixing.cutmix_alpha=1", "--config.batch_size=16",
]  # fmt: skip


def main(path, *flags, config="folder"):
    return preview.main(["preview", "--config", str(ROOT / f"configs/{config}.py"), f"--output={path}", *flags])


def test_a_picture_of_the_policy(write_folder, tmp_path, capsys):
    path = tmp_path / "new" / "policy.png"
    flags = [f"--config.dataset.data_dir={write_folder()}", "--config.dataset.image_size=16,16", *POLICY]
    assert main(path, *flags) == 0
    assert f"wrote {path}" in capsys.readouterr().out
    with Image.open(path) as image:
        height = image.size[1]
        # 14 operations, 4 other steps and 4 batches.
        assert height == round(100 * (1.5 * (14 + 4 + 4) + 0.6))
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert 0.2 < (pixels != 255).any(1).mean() < 0.9


def test_a_config_without_augmentation_shows_its_batches(tmp_path):
    path = tmp_path / "digits.png"
    assert main(path, config="digits") == 0
    with Image.open(path) as image:
        assert image.size[1] == 100 * 1.5 * _rows("digits") + 60


def _rows(config):
    augment = get_config(config).augment
    return preview.BATCH_ROWS + sum(augment[name] != "none" for name in ("crop", "flip")) + 1  # and the mixing


def test_its_batches_are_those_of_the_training():
    policy = {
        "crop": "pad", "flip": "random", "automatic": "randaugment", "erasing__probability": 0.5,
        "mixing__mixup_alpha": 1.0, "mixing__cutmix_alpha": 1.0,
    }  # fmt: skip
    config = make_config(batch_size=16, seed=3, **{f"augment__{key}": value for key, value in policy.items()})
    dataset = make_dataset(channels=3)
    trainer = Trainer(config, dataset, jax.devices()[:1])
    for step, (images, captions) in enumerate(augmented_batches(config, dataset, 2, 5)):
        batch = {key: x[0] for key, x in trainer.sampler.batches(step, 1).items()}
        of_batch, labels = dataset.train.read(batch["indices"])
        batch |= {"images": of_batch, "labels": labels}
        predecessors = functools.partial(jax.tree.map, lambda x: jnp.roll(x, 1, axis=0))
        augment = trainer.functions.augment
        expected, targets = augment.train(config.seed, step, batch, np.arange(16), predecessors)
        expected = np.asarray(augment.denormalize(expected), int)
        assert np.abs(images - expected[:5]).max() <= 1
        assert np.abs(images - of_batch[:5].astype(int)).max() > 1
        assert captions == [target_caption(dataset, np.asarray(target)) for target in targets[:5]]
    label, share = captions[0].split("\n")[0].split()
    assert float(share) == pytest.approx(float(targets[0].max()), abs=0.005)
    assert dataset.label_names.index(label) == int(targets[0].argmax())


def test_a_dataset_of_one_class_has_captions():
    assert target_caption(make_dataset(num_classes=1), np.ones(1)) == "0"


def test_what_is_there_is_not_overwritten_unasked(tmp_path):
    mine = tmp_path / "mine.png"
    Image.new("RGB", (4, 4)).save(mine)
    before = mine.read_bytes()
    with pytest.raises(UserError, match="mine.png already exists: --overwrite replaces it"):
        main(mine, config="digits")
    assert mine.read_bytes() == before
    with pytest.raises(UserError, match="a preview is a PNG"):
        main(tmp_path / "preview.jpg", config="digits")
