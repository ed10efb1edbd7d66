"""Temporary downloads of remote files."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from mixer_jax.errors import UserError


@contextmanager
def local(source: str, largest: int) -> Iterator[Path]:
    """Yield the local path of a file, downloading a remote file for the duration of the context.

    Args:
      source: a local path, which is yielded unchecked, or an https:// or gs:// URL.
      largest: the size limit of a download in bytes.

    Raises:
      UserError: if the URL has a different scheme, the download fails, or the file is larger than `largest`.
    """
    if source.startswith("gs://"):
        source = f"https://storage.googleapis.com/{source.removeprefix('gs://')}"
    if not source.startswith("https://"):
        if "://" in source:
            raise UserError(f"{source}: only https:// and gs:// are downloaded from")
        yield Path(source)
        return
    import requests  # here, because most runs download nothing

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / os.path.basename(source.partition("?")[0])
        try:
            with requests.get(source, stream=True, timeout=30) as response, path.open("wb") as file:
                response.raise_for_status()
                size = int(response.headers.get("content-length", 0))
                with tqdm(total=size or None, unit="B", unit_scale=True, leave=False, disable=None) as bar:
                    for chunk in response.iter_content(2**20):
                        bar.update(file.write(chunk))
                        if file.tell() > largest:
                            raise UserError(f"{source} is larger than {largest:,} bytes")
        except (requests.RequestException, OSError) as error:
            raise UserError(f"cannot download {source}: {' '.join(str(error).split())[:200]}") from error
        yield path
