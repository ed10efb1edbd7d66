"""The house keeps its order: a room imports only from rooms under it, and every file can be read at a sitting."""

import ast
import re

from support import ROOT

# From top to bottom; commands stand above all.
ROOMS = [
    "benchmarks",
    "reporting",
    "training",
    "augment",
    "data",
    "interop",
    "models",
    "run_directory",
    "hold",
    "metrics",
    "config",
    "cache",
    "storage",
    "errors",
]
PACKAGE = ROOT / "mixer_jax"


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mixer_jax"):
            names = [node.module] if node.module != "mixer_jax" else [f"mixer_jax.{alias.name}" for alias in node.names]
            yield from (name.split(".")[1] for name in names)


def test_rooms_import_only_from_rooms_under_them():
    seen = set()
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in ROOMS:
            continue
        seen.add(room)
        for other in imported(path):
            assert ROOMS.index(other) >= ROOMS.index(room), f"{path} imports {other}"
            assert (room, other) != ("reporting", "training"), f"{path} imports training"
    assert seen == set(ROOMS)


def test_only_one_module_knows_pmap():
    knowing = {p.name for p in PACKAGE.rglob("*.py") if "jax.pmap" in p.read_text()}
    assert knowing == {"parallel.py"}


def test_nothing_is_ever_unpickled():
    """Pickles run code. The words by which Python, NumPy, PyTorch and pandas load one, with the safe ways left out."""
    loads = re.compile(r"\bpickle\b(?!=False)|cloudpickle|joblib|dill|torch\.load\((?!.*weights_only=True)|read_pickle")
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "configs").glob("*.py")]:
        found = loads.search(path.read_text().replace("allow_pickle=False", ""))
        assert not found, f"{path}: {found[0]}"


def test_files_can_be_read_at_a_sitting():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path
