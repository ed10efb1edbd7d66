"""Find a dataset of TensorFlow Datasets, and download and prepare it on first use, without TensorFlow."""

import contextlib
import json
import os
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import numpy as np
import requests
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import downloader, extractor
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from mixer_jax.errors import UserError, did_you_mean, in_one_line
from mixer_jax.messages import say

PROBE_SECONDS = 8.0  # how long a host can take to answer before it counts as unreachable


def prepared_builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """Return the builder of a dataset that is ready to be read, after downloading and preparing it if necessary.

    Args:
      name: the name in TFDS, such as "cifar10".
      data_dir: the folder of prepared datasets, or "" for TFDS's own (TFDS_DATA_DIR or ~/tensorflow_datasets).

    Raises:
      UserError: if the dataset is unknown, is not for image classification, or cannot be downloaded, prepared or read.
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:  # the last two: not a valid name
        known = ["digits", "folder", *tfds.list_builders(with_community_datasets=False)]
        raise UserError(
            f"unknown dataset {name!r}{did_you_mean(name, known)}; valid: digits, folder, or a name of TensorFlow "
            "Datasets such as mnist, fashion_mnist, kmnist, cifar10, cifar100 (https://www.tensorflow.org/datasets/catalog)"
        ) from error
    except ImportError as error:
        raise UserError(f"dataset {name!r} needs packages that TFDS does not install: {error.__cause__}") from error
    except Exception as error:  # of a damaged folder, or an address that does not answer
        raise UserError(f"cannot open dataset {name!r}: {in_one_line(error)[:200]}") from error
    supervised_keys(builder)
    if not builder.is_prepared():
        say(f"{name} is not in {builder.data_path}: downloading and preparing it for this and later runs")
        _prepare(builder)
    return builder


def builder_in(folder: str) -> tfds.core.DatasetBuilder:
    """Return the builder of a dataset that TFDS has prepared in a folder, even if its own builder is not installed.

    Args:
      folder: the folder of the version, which holds features.json and the shards, such as my_dataset/1.0.0.

    Raises:
      UserError: if the folder cannot be read.
    """
    try:
        return tfds.builder_from_directory(os.path.expanduser(folder))
    except Exception as error:  # each part of TFDS raises its own exceptions
        raise UserError(f"cannot read the dataset in {folder}: {in_one_line(error)[:200]}") from error


def supervised_keys(builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    """Return the names of a dataset's image and label features.

    Raises:
      UserError: if the dataset does not consist of 8-bit images with one class label each.
    """
    keys, features = builder.info.supervised_keys, builder.info.features
    if (
        not keys
        or not isinstance(features[keys[0]], tfds.features.Image)
        or not isinstance(features[keys[1]], tfds.features.ClassLabel)
        or features[keys[0]].np_dtype != np.uint8
    ):
        raise UserError(f"dataset {builder.name!r} is not an image-classification set of 8-bit images")
    return keys[0], keys[1]


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
    downloads = builder.data_dir_root / "downloads"
    advice = (
        f"check the network, or give a folder in which {builder.name} is prepared with config.dataset.data_dir, "
        f"or download these files into {downloads / 'manual'}: {', '.join(builder.url_infos)}"
    )
    _probe(builder, advice)
    try:
        with _without_tensorflow(builder):
            builder.download_and_prepare(
                file_format="array_record", download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
    except NonMatchingChecksumError as error:
        raise UserError(f"the download of {builder.name} is damaged: delete {downloads} and try again") from error
    except (requests.RequestException, tfds.download.DownloadError) as error:
        raise UserError(f"downloading {builder.name} failed ({type(error).__name__}): {advice}") from error
    except extractor.ExtractError as error:
        raise UserError(f"cannot unpack {builder.name}: delete {downloads} and try again") from error
    except FileExistsError as error:
        raise UserError(f"another process has just prepared {builder.name}: run the same command again") from error
    except OSError as error:
        raise UserError(
            f"cannot prepare {builder.name} in {builder.data_path} ({error.strerror}): make room there, or choose "
            "another config.dataset.data_dir"
        ) from error
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise UserError(
            f"TFDS needs TensorFlow to prepare {builder.name} ({error}): run `tfds build {builder.name} "
            "--file_format=array_record` on a machine with TensorFlow, and give the folder that it writes with "
            "config.dataset.data_dir"
        ) from error


def _probe(builder: tfds.core.DatasetBuilder, advice: str) -> None:
    """Raise within seconds if a host of an archive to be downloaded does not answer; TFDS would retry for minutes."""
    downloads = Path(builder.data_dir_root) / "downloads"
    cached = set[str]()
    for info in downloads.rglob("*.INFO"):
        with contextlib.suppress(OSError, ValueError):  # a damaged one; TFDS downloads its file again
            cached.update(json.loads(info.read_text()).get("urls", ()))
    missing = [
        url
        for url, info in builder.url_infos.items()
        if url not in cached and not (info.filename and (downloads / "manual" / info.filename).exists())
    ]
    for host, url in {urlsplit(url).netloc: url for url in missing}.items():
        if not _answers(url):
            raise UserError(f"{builder.name} has to be downloaded, but {host} does not answer: {advice}")


def _answers(url: str) -> bool:
    alive = threading.Event()

    def ask():
        with contextlib.suppress(requests.RequestException):
            requests.head(url, timeout=PROBE_SECONDS, allow_redirects=True)
            alive.set()

    # A daemon thread, because a DNS lookup has no timeout and must not delay the exit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return alive.is_set()


class _StandIn:
    """The part of the module `tensorflow` that unpacking and reading an archive needs."""

    io = types.SimpleNamespace(gfile=types.SimpleNamespace(GFile=open))
    compat = types.SimpleNamespace(as_text=os.fsdecode)

    def __getattr__(self, name: str):
        raise ModuleNotFoundError(f"tensorflow.{name}", name="tensorflow")


@contextlib.contextmanager
def _without_tensorflow(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Let a TFDS builder run without TensorFlow, which it only uses to open files and to encode PNGs.

    In the modules that open files, `open` replaces `tf.io.gfile.GFile`. Examples carry PIL images, which TFDS encodes
    without TensorFlow. TFDS retries a download ten times, over three minutes; here it retries twice.
    """
    generate = builder._generate_examples

    def generate_pil(*args, **kwargs):
        for key, example in generate(*args, **kwargs):
            yield key, {name: _as_pil(value) for name, value in example.items()}

    module = sys.modules[type(builder).__module__]
    with (
        mock.patch.object(builder, "_generate_examples", generate_pil),
        mock.patch.object(module, "tf", _StandIn(), create=True),
        mock.patch.object(extractor, "tf", _StandIn()),
        mock.patch.object(downloader, "MAX_RETRIES", 2),
    ):
        yield


def _as_pil(value):
    if not (isinstance(value, np.ndarray) and value.ndim == 3 and value.dtype == np.uint8):
        return value
    return Image.fromarray(value[..., 0] if value.shape[-1] == 1 else value)
