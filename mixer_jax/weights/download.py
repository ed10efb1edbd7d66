"""Files at an address: downloaded for as long as they are needed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from mixer_jax.errors import UserError


@contextmanager
def local(source: str, largest: int) -> Iterator[Path]:
    """The file at a path, or at an https:// or gs:// address, of at most `largest` bytes; that is gone afterwards.

    Raises:
      UserError: if it cannot be downloaded; a path is given back as it is.
    """
    if source.startswith("gs://"):
        source = f"https://storage.googleapis.com/{source.removeprefix('gs://')}"
    if not source.startswith("https://"):
        if "://" in source:
            raise UserError(f"{source}: only https:// and gs:// are downloaded from")
        yield Path(source)
        return
    import requests  # only now: most runs start from nothing that is downloaded

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
