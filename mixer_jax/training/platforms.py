"""Detection of an accelerator that JAX does not use."""

from pathlib import Path

import jax

GOOGLE, NVIDIA = "0x1ae0", "0x10de"  # PCI vendors
TPU_IDS = {"0x0027", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076"}  # v2 and v3, v4, v5p, v5e, v6e, v7x
DISPLAY = "0x03"  # class of PCI devices: graphics cards, including those that only compute


def unused_accelerator(root: Path = Path("/")) -> str | None:
    """Return a line about an accelerator of this machine that JAX does not use, with the remedy.

    Args:
      root: the root of the machine's file system.

    Returns:
      The line; None if there is no such accelerator, or if the CPU was chosen as JAX's platform.
    """
    if jax.default_backend() != "cpu" or "cpu" in (getattr(jax.config, "jax_platforms", None) or "").split(","):
        return None
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        vendor, number, kind = (_read(device / name) for name in ("vendor", "device", "class"))
        if vendor == GOOGLE and number in TPU_IDS:
            return (
                "this machine has a TPU, but JAX runs on the CPU: its libtpu is missing, was replaced "
                f'or is in use by another process. Restart the runtime, or pip install "jax[tpu]=={jax.__version__}"'
            )
        if vendor == NVIDIA and kind.startswith(DISPLAY):
            return (
                "this machine has an NVIDIA GPU, but JAX runs on the CPU: pip install "
                f'"jax[cuda12]=={jax.__version__}", and check that nvidia-smi finds the driver'
            )
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
