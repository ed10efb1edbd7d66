"""The house keeps its order: a room imports only from rooms under it, and commands stand above all rooms."""

import ast
import re

from support import ROOT

# From top to bottom: each a folder or a file of the package.
ROOMS = [
    "studies",
    "benchmarks",
    "training",
    "reporting",
    "inference",
    "weights",
    "checkpoints",
    "interop",
    "augment",
    "data",
    "models",
    "claim",
    "run_directory",
    "lock",
    "records",
    "metrics",
    "config_files",
    "config",
    "cache",
    "storage",
    "messages",
    "errors",
]
FOR_COMMANDS = {"cli"}  # what commands share
PACKAGE = ROOT / "mixer_jax"


def place(path):
    """The room, command or other part of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_command(path):
    """Whether a file can be run: it lies in the package itself and has an `if __name__` block."""
    tests = (ast.unparse(node.test) for node in ast.parse(path.read_text()).body if isinstance(node, ast.If))
    return path.parent == PACKAGE and any("__name__" in test for test in tests)


COMMANDS = {place(path) for path in PACKAGE.glob("*.py") if is_command(path)}


def imported(path):
    """The parts of the package that a file imports, wherever in the file it does."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = (name.split(".") for name in names)
    return {name[1] for name in parts if name[0] == "mixer_jax" and len(name) > 1 and name[1] != "__version__"}


def test_every_part_of_the_package_is_a_room_or_a_command():
    parts = {place(path) for path in PACKAGE.rglob("*.py")}
    assert parts == {*ROOMS, *COMMANDS, *FOR_COMMANDS, "__init__"}
    assert len(ROOMS) + len(COMMANDS) + len(FOR_COMMANDS) + 1 == len(parts)
    assert {"train", "study", "compare", "benchmark", "report"} <= COMMANDS


def test_rooms_import_only_from_rooms_under_them():
    upwards = []
    for path in PACKAGE.rglob("*.py"):
        if (room := place(path)) in ROOMS:
            under = ROOMS[ROOMS.index(room) :]
            upwards += [f"{path.relative_to(PACKAGE)} imports {other}" for other in imported(path).difference(under)]
    assert sorted(upwards) == []


def test_no_command_imports_another():
    allowed = {*ROOMS, *FOR_COMMANDS}
    across = []
    for path in PACKAGE.glob("*.py"):
        own = allowed if place(path) in COMMANDS else allowed - {place(path)}
        across += [f"{path.relative_to(PACKAGE)} imports {other}" for other in imported(path).difference(own)]
    assert sorted(across) == []


def test_only_one_module_knows_pmap():
    knowing = {p.name for p in PACKAGE.rglob("*.py") if "jax.pmap" in p.read_text()}
    assert knowing == {"parallel.py"}


def test_nothing_is_ever_unpickled():
    """Pickles run code. The words by which Python, NumPy, PyTorch and pandas load one, with the safe ways left out."""
    loads = re.compile(r"\bpickle\b(?!=False)|cloudpickle|joblib|dill|torch\.load\((?!.*weights_only=True)|read_pickle")
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "configs").glob("*.py")]:
        found = loads.search(path.read_text().replace("allow_pickle=False", ""))
        assert not found, f"{path}: {found[0]}"
