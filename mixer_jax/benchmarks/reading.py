"""The speed of reading a dataset from its files: by the input pipeline, and by PyTorch's DataLoader."""

import collections
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mixer_jax import data
from mixer_jax.benchmarks.rounds import ratio, spread
from mixer_jax.cache import cores
from mixer_jax.data.sources import FolderSource, Subset
from mixer_jax.data.tar_files import DISK
from mixer_jax.errors import UserError
from mixer_jax.training.parallel import DataParallel

PIPELINE, DATA_LOADER = "the input pipeline", "torch's DataLoader"


def measure_reading(config: ConfigDict, num_images: int, rounds: int, against_torch: bool) -> dict[str, Any]:
    """Measure alternately how fast the training images are read, scaled and laid out as batches.

    In each round, this library and PyTorch each read the same `num_images` random images once, or all images if there
    are fewer. PyTorch's side is torchvision's `Resize` and `CenterCrop` in a DataLoader with a process per core; the
    processes are started beforehand.

    Returns:
      The number of `images`, their `image_shape`, the `batch_size` and the number of `rounds`. Also, as median, minimum
      and maximum: the `images_per_second` of each side, and their `ratio` if both were measured.

    Raises:
      UserError: if the dataset cannot be read, or if PyTorch is to be measured and the dataset is not an image folder.
    """
    config.dataset.memory_budget_gib = 0.0  # streamed
    split = data.load(config.dataset).train
    assert isinstance(split, data.StreamedSplit)
    chosen = np.random.default_rng(0).permutation(len(split))[:num_images]
    some = data.StreamedSplit(Subset(split.source, chosen), split.image_shape)
    batch_size = min(config.batch_size, len(chosen))
    sides = {PIPELINE: lambda: _read(some, batch_size, config.dataset.reader_threads)}
    if against_torch:
        sides[DATA_LOADER] = _data_loader(split.source, chosen, split.image_shape[:2], batch_size)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(rounds + 1):
        for name, read in sides.items():
            start = time.perf_counter()
            read()
            if round_:  # the first one starts the processes and fills the operating system's cache of files
                seconds[name].append(time.perf_counter() - start)
    report = {"images": len(chosen), "image_shape": split.image_shape, "batch_size": batch_size, "rounds": rounds}
    report["images_per_second"] = {name: spread([len(chosen) / s for s in taken]) for name, taken in seconds.items()}
    if against_torch:
        report["ratio"] = spread(ratio(seconds, DATA_LOADER, PIPELINE))
    return report


def _read(split: data.StreamedSplit, batch_size: int, threads: int) -> None:
    """Read all images once, as an evaluation does."""
    devices = DataParallel(jax.local_devices()[:1])
    sampler = data.EvalSampler(len(split), batch_size)
    pipeline = data.StreamingPipeline(split, sampler, data.ProcessShard(1), devices.sharding, threads)
    for step in range(0, sampler.num_steps, pipeline.max_steps):
        jax.block_until_ready(pipeline.chunk(step, min(pipeline.max_steps, sampler.num_steps - step)))


class TorchFolder:
    """The images that this library reads, in the same order, as a dataset for PyTorch."""

    def __init__(self, source: FolderSource, chosen: Sequence[int], size: Sequence[int]):
        from torchvision import transforms

        self._files = [(str(source.paths[i]), int(source.of_class[i])) for i in chosen]
        height, width = size
        shorter = transforms.Resize(max(height, width), antialias=True)
        self._transform = transforms.Compose(
            [shorter, transforms.CenterCrop((height, width)), transforms.PILToTensor()]
        )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from torchvision.datasets.folder import default_loader

        path, label = self._files[index]
        return self._transform(default_loader(path)), label


def _data_loader(source: Any, chosen: np.ndarray, size: Sequence[int], batch_size: int) -> Callable[[], Any]:
    try:
        import torchvision  # noqa: F401
        from torch.utils.data import DataLoader
    except ImportError as error:
        raise UserError(f"--against torchvision: {error}; pip install torch torchvision") from error
    if isinstance(source, Subset):
        source, chosen = source.source, source.indices[chosen]
    if not isinstance(source, FolderSource) or source.store is not DISK:
        raise UserError("--reading with --against torchvision works only for folders of image files")
    images = TorchFolder(source, chosen, size)
    loader = DataLoader(
        images, batch_size, num_workers=cores(), persistent_workers=True, multiprocessing_context="spawn"
    )
    return lambda: collections.deque(loader, maxlen=0)
