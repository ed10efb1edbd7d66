"""The user's cache folder, whose content may be deleted at any time: compiled programs, and decoded sets."""

import contextlib
import hashlib
import os
import platform
import re
from pathlib import Path

import jax

DECODED_BYTES, COMPILED_BYTES = 10 * 2**30, 2 * 2**30  # that are kept, at most


def cache_folder(name: str) -> Path:
    """A folder of this name in the user's cache folder, which need not exist."""
    # Path.expanduser raises where there is no home.
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "mixer_jax", name)


def keep_compiled() -> None:
    """Keeps compiled programs for the next start.

    Whoever sets JAX_COMPILATION_CACHE_DIR has it there, and as JAX's other settings say.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    folder = cache_folder(_processor_key())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a home that is not writable is no reason not to train
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def tidy() -> None:
    """Delete what was used longest ago of what is kept, where that is more than its limit."""
    decoded = cache_folder("decoded")
    files = [file for file in cache_folder("").rglob("*") if file.is_file()]
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
    """How many of the CPU's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor_key() -> str:
    """Tells apart what does not run each other's programs, or not well: a home, and so this folder, may be shared.

    XLA divides a program's work among the cores that there are when it compiles, and its own key does not tell.
    """
    digest = hashlib.sha256(processor("flags|Features").encode()).hexdigest()
    return f"{platform.machine()}-{digest[:8]}-{cores()}"


def processor(field: str) -> str:
    """What Linux says of the processor in a field, a regular expression; elsewhere what Python knows."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    match = re.search(rf"^(?:{field})\s*:(.*)", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()
