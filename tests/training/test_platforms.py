"""What is said of an accelerator that JAX does not use, and what a device is given to compute in."""

from types import SimpleNamespace

import jax
import pytest

from mixer_jax.training.parallel import has_bfloat16
from mixer_jax.training.platforms import unused_accelerator


def machine(root, **device):
    folder = root / "sys/bus/pci/devices/0000:00:04.0"
    folder.mkdir(parents=True)
    for name, value in device.items():
        (folder / name.rstrip("_")).write_text(f"{value}\n")
    return root


TPU = {"vendor": "0x1ae0", "device": "0x0063", "class_": "0x120000"}
NETWORK = {"vendor": "0x1ae0", "device": "0x0042", "class_": "0x020000"}  # Google's, too
GPU = {"vendor": "0x10de", "device": "0x1eb8", "class_": "0x030200"}


@pytest.fixture
def nothing_chosen(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)
    yield
    jax.config.update("jax_platforms", before)


@pytest.mark.usefixtures("nothing_chosen")
@pytest.mark.parametrize(
    ("device", "words"),
    [(TPU, "a TPU, but JAX runs on the CPU"), (GPU, "an NVIDIA GPU, but JAX runs"), (NETWORK, None)],
)
def test_an_accelerator_that_is_not_used_is_named_with_the_remedy(device, words, tmp_path):
    line = unused_accelerator(machine(tmp_path, **device))
    if words is None:
        assert line is None
    else:
        assert words in line
        assert "pip install" in line
        assert "\n" not in line


@pytest.mark.usefixtures("nothing_chosen")
def test_nothing_is_said_where_it_is_used_or_the_cpu_was_chosen(tmp_path, monkeypatch):
    root = machine(tmp_path, **TPU)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert unused_accelerator(root) is None
    monkeypatch.undo()
    jax.config.update("jax_platforms", "cpu")
    assert unused_accelerator(root) is None
    jax.config.update("jax_platforms", None)
    assert unused_accelerator(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("platform", "capability", "expected"),
    [
        ("cpu", None, False),
        ("tpu", None, True),
        ("gpu", "7.5", False),
        ("gpu", "7.0", False),
        ("gpu", "8.0", True),
        ("gpu", "gfx90a", True),
    ],
)
def test_bfloat16_is_for_devices_that_have_it(platform, capability, expected):
    assert has_bfloat16(SimpleNamespace(platform=platform, compute_capability=capability)) is expected
