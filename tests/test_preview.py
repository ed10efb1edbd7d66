"""The preview command: a picture of the policy, over nothing but its own pictures."""

import numpy as np
import pytest
from PIL import Image

from mixer_jax import preview
from mixer_jax.config_files import get_config
from mixer_jax.errors import UserError
from support import ROOT

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


def test_what_is_there_is_not_overwritten_unasked(tmp_path):
    mine = tmp_path / "mine.png"
    Image.new("RGB", (4, 4)).save(mine)
    before = mine.read_bytes()
    with pytest.raises(UserError, match="mine.png is there already: --overwrite writes over it"):
        main(mine, config="digits")
    assert mine.read_bytes() == before
    with pytest.raises(UserError, match="a preview is a PNG"):
        main(tmp_path / "preview.jpg", config="digits")
