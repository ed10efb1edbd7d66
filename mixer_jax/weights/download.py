"""Downloads into the user's cache folder: resumed where they broke off, and checked."""

import base64
import contextlib
import fcntl
import hashlib
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from mixer_jax.cache import cache_folder
from mixer_jax.errors import UserError, in_one_line

CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0  # the longest waits for a connection and for the next bytes
CHUNK = 2**20  # bytes


def downloaded(url: str, largest: int, sha256: str = "", optional: bool = False) -> Path | None:
    """Return the local copy of a remote file, which is downloaded unless it is in the cache.

    An interrupted download resumes where it stopped, unless the file has changed. If the server states a checksum, as
    Google Cloud Storage and the Hugging Face Hub do, the result is compared with it.

    Args:
      url: an https:// or gs:// URL; http:// is allowed only for localhost. "hf-hub:OWNER/NAME/FILE" is on the Hugging
        Face Hub.
      largest: the size limit in bytes.
      sha256: the checksum, or its first digits; "" if unknown.
      optional: return None if the server has no such file.

    Raises:
      UserError: if the URL has a different scheme, the download fails, the checksum differs, or the file is too large.
    """
    import requests  # here, because most runs download nothing

    address = _address(url)
    try:
        name = os.path.basename(urlsplit(address).path)
    except ValueError as error:
        raise UserError(f"{url} is not a URL: {error}") from error
    if name in ("", ".", ".."):
        raise UserError(f"{url} does not end in the name of a file")
    folder = cache_folder("weights") / hashlib.sha256(address.encode()).hexdigest()[:16]
    path, partial, absent = folder / name, folder / f"{name}.partial", folder / f"{name}.absent"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be downloading it
            if path.exists():
                return path
            with requests.Session() as session:
                if url.startswith("hf-hub:") and (token := os.environ.get("HF_TOKEN")):
                    session.headers["Authorization"] = f"Bearer {token}"  # not sent to another host after a redirect
                stated = _fetch(session, address, partial, largest, optional)
            if stated is None:
                absent.touch()
                return None
            _require_checksum(partial, url, stated | ({"sha256": sha256} if sha256 else {}))
            partial.replace(path)
    except (requests.RequestException, OSError, ValueError) as error:
        if optional and isinstance(error, requests.ConnectionError) and absent.exists():  # no network
            return None
        response = getattr(error, "response", None)
        refused = response is not None and response.status_code in (401, 403, 404)
        remedy = "check the address and your access to it" if refused else "run the same command again to resume"
        raise UserError(
            f"cannot download {url}: {in_one_line(error)[:200]}; {remedy}, or put the file at {path}"
        ) from error
    return path


def _address(url: str) -> str:
    """Return the https:// address of a URL."""
    if url.startswith("gs://"):
        host = os.environ.get("STORAGE_EMULATOR_HOST", "https://storage.googleapis.com").rstrip("/")
        return f"{host}/{url.removeprefix('gs://')}"
    if url.startswith("hf-hub:"):
        owner, name, file = url.removeprefix("hf-hub:").split("/", 2)
        name, _, revision = name.partition("@")
        host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        return f"{host}/{owner}/{name}/resolve/{revision or 'main'}/{file}"
    if re.match(r"https://|http://(localhost|127\.0\.0\.1|\[::1\])[:/]", url):
        return url
    raise UserError(f"{url}: only https:// and gs:// URLs can be downloaded")


def _fetch(session: Any, address: str, partial: Path, largest: int, optional: bool) -> dict[str, str] | None:
    """Download a file, or the rest of it; return the checksums that the server states, None if it has no such file."""
    tag_file = partial.with_name(f"{partial.name}.etag")
    size, headers = partial.stat().st_size if partial.exists() else 0, {"Accept-Encoding": "identity"}
    if size and tag_file.exists():
        headers |= {"Range": f"bytes={size}-", "If-Range": tag_file.read_text()}
    with session.get(address, stream=True, headers=headers, timeout=(CONNECT_SECONDS, READ_SECONDS)) as response:
        if response.status_code == 416:  # all of it was there: the next command starts afresh
            partial.unlink()
        if response.status_code == 404 and optional:
            return None
        partial.with_name(f"{partial.stem}.absent").unlink(missing_ok=True)
        response.raise_for_status()
        resumed = response.status_code == 206
        if not resumed:
            size = 0
            tag_file.unlink(missing_ok=True)
            tag = response.headers.get("ETag", "")
            if tag and not tag.startswith("W/"):
                tag_file.write_text(tag)
        total = size + int(response.headers.get("Content-Length", 0))
        if total > largest:
            raise UserError(f"{address} is larger than {largest:,} bytes")
        with (
            partial.open("ab" if resumed else "wb") as file,
            tqdm(total=total or None, initial=size, unit="B", unit_scale=True, desc=partial.stem, disable=None) as bar,
        ):
            for chunk in response.iter_content(CHUNK):
                size += file.write(chunk)
                bar.update(len(chunk))
                if size > largest:
                    raise UserError(f"{address} is larger than {largest:,} bytes")
        if total and size != total:
            raise OSError(f"it broke off after {size:,} of {total:,} bytes")
        tag_file.unlink(missing_ok=True)
        return _stated(response)


def _stated(response: Any) -> dict[str, str]:
    """Return the checksums in the headers of a response, or of a redirect to it, as hexadecimal digits by algorithm."""
    stated = {}
    for part in (*response.history, response):
        if match := re.fullmatch(r'"?([0-9a-f]{64})"?', part.headers.get("X-Linked-ETag", "")):  # the Hugging Face Hub
            stated["sha256"] = match[1]
        if match := re.search(r"md5=([A-Za-z0-9+/=]+)", part.headers.get("x-goog-hash", "")):  # Google Cloud Storage
            stated["md5"] = base64.b64decode(match[1]).hex()
    return stated


def _require_checksum(file: Path, url: str, stated: dict[str, str]) -> None:
    for algorithm, digits in stated.items():
        with file.open("rb") as content:
            found = hashlib.file_digest(content, algorithm).hexdigest()
        if not found.startswith(digits):
            file.unlink()
            raise UserError(
                f"the download of {url} has the {algorithm} {found}, not {digits}, and was deleted: "
                "run the same command again"
            )
