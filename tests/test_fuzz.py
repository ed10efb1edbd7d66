"""Whatever a stranger gives, config values and image files among it, is taken or refused in one line; nothing else."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from mixer_jax import cli
from mixer_jax.config import default_config, flat
from mixer_jax.data.images import IMAGE_FORMATS
from mixer_jax.data.sources import image_folder
from mixer_jax.errors import UserError
from mixer_jax.training import Trainer
from support import ROOT, make_dataset

VALUES = [
    "", "0", "1", "-1", "2", "7", "0.5", "1e-320", "1e38", "1e308", "nan", "inf", "-inf", "2147483647", "9" * 40, "x",
    "None", "True", "()", "3,4", "0,0", "-1,2", "1,1e9", "a,b", "\x00", "../../etc",
]  # fmt: skip
FIELDS = list(flat(default_config()))


def parse(field, value):
    small = ["--config.model.num_blocks=1", "--config.model.hidden_dim=8", "--config.batch_size=64"]
    arguments = ["program", f"--config={ROOT}/configs/digits.py", *small, f"--config.{field}={value}"]
    return cli.parse(arguments, lambda values: None, "usage")[1]


def outcome(function, *arguments):
    """What a function returns, or the line of its `UserError`; anything else that it raises is a failure."""
    try:
        return function(*arguments)
    except UserError as error:
        return str(error)


@pytest.mark.slow
def test_config_values():
    """Every field takes every value, or refuses it; and so does what is built of it, before anything is compiled."""
    outcomes = [outcome(parse, field, value) for field, value in itertools.product(FIELDS, VALUES)]
    taken = [config for config in outcomes if not isinstance(config, str)]
    assert len(outcomes) - len(taken) > len(taken) > 300
    dataset, rng = make_dataset(size=8), np.random.default_rng(0)
    trainers = [outcome(Trainer, taken[i], dataset) for i in rng.permutation(len(taken))[:14]]
    assert sum(isinstance(trainer, Trainer) for trainer in trainers) > 3
    assert not any("\n" in line for line in outcomes + trainers if isinstance(line, str))


def encoded(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 31, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", [*IMAGE_FORMATS, "PPM", "EPS", "PDF"])
def test_image_files(kind, tmp_path):
    """Whole, cut short, with flipped bits, and of a kind that its name does not say."""
    folder = tmp_path / "train" / "cat"
    folder.mkdir(parents=True)
    good, rng = encoded(kind), np.random.default_rng(0)
    contents = [good, *(good[: len(good) * i // 12] for i in range(12))]
    for _ in range(40):
        content = bytearray(good)
        for position in rng.integers(0, len(content), 3):
            content[position] ^= 1 << int(rng.integers(8))
        contents.append(bytes(content))
    outcomes = []
    for content in contents:
        (folder / "0.png").write_bytes(content)
        outcomes.append(outcome(image_folder(str(tmp_path), "train").__getitems__, [0]))
    lines = [line for line in outcomes if isinstance(line, str)]
    assert all(line.startswith(f"cannot read image {folder / '0.png'}: ") and "\n" not in line for line in lines)
    images = [image for [(image, _)] in (read for read in outcomes if not isinstance(read, str))]
    assert all((image.dtype, image.ndim, image.shape[-1]) == (np.uint8, 3, 3) for image in images)
    if kind in IMAGE_FORMATS:
        assert images[0].shape == (24, 31, 3)
        assert lines
    else:
        assert not images  # Pillow would hand some of these to other programs
