"""The user's cache folder for compiled programs, decoded datasets, lists of files and downloads.

It may be deleted at any time.
"""

import contextlib
import hashlib
import os
import platform
import re
from pathlib import Path

import jax

# Limits of `tidy`; the second covers everything except decoded data and weights.
DECODED_BYTES, COMPILED_BYTES = 10 * 2**30, 2 * 2**30


def cache_folder(name: str) -> Path:
    """Return the folder of this name in the user's cache folder; it need not exist."""
    # Path.expanduser would raise if there is no home directory.
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "mixer_jax", name)


def keep_compiled() -> None:
    """Make JAX keep compiled programs on disk for the next start.

    If JAX_COMPILATION_CACHE_DIR is set, the cache is in that folder instead, and all of JAX's own settings apply.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    folder = cache_folder(_processor_key())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # training also works without a writable home directory
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def keeps_compiled() -> bool:
    """Return whether JAX keeps compiled programs on disk."""
    return bool(jax.config.jax_compilation_cache_dir)


def tidy() -> None:
    """Delete the least recently used files until the others are within the limits.

    Decoded datasets have one limit; compiled programs and lists of files have another. Downloaded weights stay.
    """
    root, decoded = cache_folder(""), cache_folder("decoded")
    found = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
    files = [file for file in found if file.relative_to(root).parts[0] != "weights"]
    _tidy([file for file in files if file.parent == decoded], DECODED_BYTES)
    _tidy([file for file in files if file.parent != decoded], COMPILED_BYTES)


def _tidy(files: list[Path], limit: int) -> None:
    found = []
    for file in files:
        with contextlib.suppress(OSError):  # another process may have deleted it
            status = file.stat()
            found.append((max(status.st_atime, status.st_mtime), status.st_size, file))
    size = sum(size for _, size, _ in found)
    for _, of_file, file in sorted(found):
        if size <= limit:
            break
        with contextlib.suppress(OSError):
            file.unlink()
            size -= of_file


def cores() -> int:
    """Return the number of CPU cores that this process can use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor_key() -> str:
    """Return a name for the cache of programs that tells processors apart.

    A program compiled on one machine may run badly on another machine with the same home directory.
    XLA divides a program's work among the cores available at compile time, but JAX's own cache key omits the number of
    cores.
    """
    digest = hashlib.sha256(processor("flags|Features").encode()).hexdigest()
    return f"{platform.machine()}-{digest[:8]}-{cores()}"


def processor(field: str) -> str:
    """Return a field of /proc/cpuinfo, named by a regular expression, or else what Python knows of the processor."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    match = re.search(rf"^(?:{field})\s*:(.*)", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()
