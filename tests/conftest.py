"""Four fake CPU devices, strict shapes, and an image folder."""

import os
import shutil

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"

import jax
import numpy as np
import pytest

from mixer_jax.messages import show_on_console
from mixer_jax.training import ahead, stages
from support import programs_for

jax.config.update("jax_numpy_rank_promotion", "raise")
# Most of the time goes into compiling tiny programs, which need not be fast: no test measures time.
jax.config.update("jax_disable_most_optimizations", True)
show_on_console()


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory, worker_id):
    """Compiles equal programs once, whichever worker needs them: many tests run the same tiny model."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder if worker_id == "master" else folder.parent) / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Leaves the user's alone, in the processes too that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def without_old_programs():
    """Frees the programs of each file's tests: a process can map memory for so many only, and crashes beyond."""
    yield
    jax.clear_caches()


PICTURES = {name: getattr(stages, name) for name in ("finish", "draw_curves")}


@pytest.fixture(scope="session", autouse=True)
def without_pictures():
    """Leaves out what runs draw at their end, which takes longer than they do, and does not compile for it."""
    for name in PICTURES:
        setattr(stages, name, lambda directory, *_: directory.curves_file.touch())
    ahead.SECONDS = 3600


@pytest.fixture(scope="module")
def with_pictures(without_pictures):
    """Runs draw after all."""
    with pytest.MonkeyPatch.context() as patch:
        for name, draw in PICTURES.items():
            patch.setattr(stages, name, draw)
        yield


@pytest.fixture(params=["cpu", "tpu"])
def each_platform(request):
    """Programs for a CPU, and those for a TPU, computed on the CPU."""
    with programs_for(request.param):
        yield


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def write_folder(tmp_path):
    """Writes an image folder of two classes: bright and dark PNGs and JPEGs; returns its path."""
    from PIL import Image

    def write(sizes=((12, 12),), per_class=8, splits=("train", "test")):
        rng = np.random.default_rng(0)
        for split in splits:
            for label, name in enumerate(("cat", "dog")):
                folder = tmp_path / "images" / split / name
                folder.mkdir(parents=True)
                for i in range(per_class):
                    height, width = sizes[i % len(sizes)]
                    pixels = rng.integers(0, 100, (height, width, 3)) + 120 * label
                    suffix = ("png", "jpg")[i % 2]
                    Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.{suffix}")
        return tmp_path / "images"

    return write
