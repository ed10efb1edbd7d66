"""The trained models that come with the package, each a file beside its model card."""

from pathlib import Path

FOLDER = Path(__file__).parent / "shipped_models"


def shipped(name: str) -> Path | None:
    """Return the file of weights with a name, such as "cifar10"; None if none has it."""
    file = FOLDER / f"{name}.safetensors"
    return file if name in shipped_names() else None


def shipped_names() -> list[str]:
    """Return the names of the models that come with the package."""
    return sorted(file.stem for file in FOLDER.glob("*.safetensors"))
