"""Small archives in the original formats of MNIST and CIFAR, served from loopback to TFDS's own builders."""

import contextlib
import gzip
import hashlib
import http.server
import io
import struct
import tarfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.image_classification import mnist

NAMES = ("mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100")
Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


def made_images(name: str, num_train: int, num_test: int) -> Arrays:
    """Random images (n, height, width, channels) uint8 and labels for "train" and "test"."""
    shape = (32, 32, 3) if name.startswith("cifar") else (28, 28, 1)
    rng = np.random.default_rng(0)
    num_classes = 100 if name == "cifar100" else 10
    return {
        split: (rng.integers(0, 256, (n, *shape), np.uint8), rng.integers(0, num_classes, n, np.uint8))
        for split, n in (("train", num_train), ("test", num_test))
    }


def pack(name: str, arrays: Arrays, smuggled: Sequence[str] = ()) -> dict[str, bytes]:
    """The archives of a set, by file name, as its authors packed them; and in those of CIFAR files of any path."""
    if not name.startswith("cifar"):
        files = {}
        for split, prefix in (("train", "train"), ("test", "t10k")):
            images, labels = arrays[split]
            header = struct.pack(">4i", 2051, len(images), 28, 28)
            files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(header + images.tobytes())
            header = struct.pack(">2i", 2049, len(labels))
            files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(header + labels.tobytes())
        return files
    ten = name == "cifar10"
    words = [f"class {i}" for i in range(10 if ten else 100)]
    folder = "cifar-10-batches-bin" if ten else "cifar-100-binary"
    if ten:
        parts = {"batches.meta.txt": "\n".join(words).encode()}
        for i, part in enumerate(np.array_split(np.arange(len(arrays["train"][0])), 5), 1):
            parts[f"data_batch_{i}.bin"] = _records(*(x[part] for x in arrays["train"]), coarse=False)
        parts["test_batch.bin"] = _records(*arrays["test"], coarse=False)
    else:
        coarse = "\n".join(f"group {i}" for i in range(20)).encode()
        parts = {"fine_label_names.txt": "\n".join(words).encode(), "coarse_label_names.txt": coarse}
        parts |= {f"{split}.bin": _records(*arrays[split], coarse=True) for split in ("train", "test")}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        contents = {f"{folder}/{part}": content for part, content in parts.items()}
        for path, content in {**contents, **dict.fromkeys(smuggled, b"evil")}.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return {"cifar-10-binary.tar.gz" if ten else "cifar-100-binary.tar.gz": buffer.getvalue()}


def _records(images: np.ndarray, labels: np.ndarray, coarse: bool) -> bytes:
    """CIFAR's binary records: one or two label bytes, then the pixels, channels first."""
    pairs = zip(images.transpose(0, 3, 1, 2), labels, strict=True)
    return b"".join(bytes([label % 20, label] if coarse else [label]) + image.tobytes() for image, label in pairs)


@contextlib.contextmanager
def served(name: str, files: dict[str, bytes], folder: Path, arrays: Arrays) -> Iterator[list[str]]:
    """Serves the files, and points the builder of the set at them; yields the log of requests."""
    requests: list[str] = []
    folder.mkdir()
    for file, content in files.items():
        (folder / file).write_bytes(content)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            requests.append(f"{self.command} {self.path}")

    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        infos = {
            url + file: checksums.UrlInfo(len(content), hashlib.sha256(content).hexdigest(), file)
            for file, content in files.items()
        }
        builder = tfds.builder(name, data_dir=folder)
        if name.startswith("cifar"):
            patch.setattr(type(builder), "_cifar_info", builder._cifar_info._replace(url=next(iter(infos))))
        else:
            patch.setattr(type(builder), "URL", url)
            patch.setattr(mnist, "_TRAIN_EXAMPLES", len(arrays["train"][0]))
            patch.setattr(mnist, "_TEST_EXAMPLES", len(arrays["test"][0]))
        patch.setattr(type(builder), "url_infos", infos)
        # TFDS knows checksums by URL, from a list it reads once.
        patch.setattr(checksums, "get_all_url_infos", lambda: dict(infos))
        yield requests
        server.shutdown()
