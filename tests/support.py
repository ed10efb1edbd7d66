"""What several tests share: reference material, tiny configs and made-up data."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import stats

from mixer_jax.config import check, default_config
from mixer_jax.data import Dataset, Split, StreamedSplit
from mixer_jax.data.sources import Example, Source

ROOT = Path(__file__).parent.parent
SHARED = (
    ROOT.parent / "shared"
)  # other implementations' outputs and real data; beside the checkout where it was developed


GOLDEN = ROOT / "tests" / "golden"  # outputs of other implementations, see its README.md


def shared(path: str) -> Path:
    """A file or folder of reference material; the test is skipped where that is not at hand."""
    if not (SHARED / path).exists():
        pytest.skip(f"needs the reference material {path}")
    return SHARED / path


def make_config(**fields) -> ConfigDict:
    """A checked config of a tiny model on digits; fields with dots as `model__num_blocks`."""
    config = default_config()
    tiny = {"variant": "Pico/4", "num_blocks": 2, "hidden_dim": 8, "tokens_mlp_dim": 8, "channels_mlp_dim": 16}
    settings = {f"model__{key}": value for key, value in tiny.items()} | {"batch_size": 64, "epochs": 2.0} | fields
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in settings.items()})
    return check(config)


def make_dataset(num_train=50, num_val=20, num_test=30, size=8, channels=1, num_classes=10, seed=0) -> Dataset:
    """Random images whose mean brightness tells the class, so that something can be learned."""
    rng = np.random.default_rng(seed)

    def split(n):
        labels = rng.integers(0, num_classes, n).astype(np.int32)
        noise = rng.integers(0, 40, (n, size, size, channels))
        return Split((noise + 20 * labels[:, None, None, None]).astype(np.uint8), labels)

    names = tuple(map(str, range(num_classes)))
    train, val, test = split(num_train), split(num_val), split(num_test)
    return Dataset("made", names, train, val, test, (0.4,) * channels, (0.3,) * channels)


def draws(draw: Callable[[jax.Array], Any], n: int) -> Any:
    """What a function of a key draws for `n` keys, always the same, stacked."""
    return jax.device_get(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), n)))


def same_distribution(some: np.ndarray, others: np.ndarray) -> bool:
    """Whether two samples look drawn from one distribution (Kolmogorov-Smirnov, one in a thousand is refused)."""
    return stats.ks_2samp(some, others, method="asymp").pvalue > 0.001


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Images that are in memory: images (n, height, width, channels) uint8, labels (n,) int."""

    name: str
    images: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]
    labels_at_hand = False

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        return [(self.images[i], int(self.labels[i])) for i in indices]

    def describe(self, index: int) -> str:
        return f"image {index} of {self.name}"

    def identity(self) -> Iterable[bytes]:
        return np.ascontiguousarray(self.images), np.ascontiguousarray(self.labels)

    def files(self) -> Iterable[Path]:
        return ()


def stream(source: Source) -> StreamedSplit:
    """The split of a source, to be streamed."""
    return StreamedSplit(source, source.__getitems__([0])[0][0].shape)


def streamed(dataset: Dataset) -> Dataset:
    """The same dataset, to be streamed."""
    names = ("train", "val", "test")
    splits = [getattr(dataset, name) for name in names]
    sources = [ArraySource("made", split.images, split.labels, dataset.label_names) for split in splits]
    return dataclasses.replace(dataset, **dict(zip(names, map(stream, sources), strict=True)))


@contextlib.contextmanager
def programs_for(platform):
    """Make JAX trace what it would compile for a platform that is not there, to run it on the CPU."""

    def choose(*arguments, default=None, **functions):
        return functions.get(platform, default)(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.lax, "platform_dependent", choose)
        jax.clear_caches()
        yield
        jax.clear_caches()
