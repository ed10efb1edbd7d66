"""Lists the commands: python -m mixer_jax"""

import ast
from pathlib import Path


def commands() -> dict[str, str]:
    """Return what each `python -m mixer_jax.NAME` does, by name, in a line."""
    told = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.If) for node in tree.body) and file.stem != Path(__file__).stem:
            told[file.stem] = (ast.get_docstring(tree) or "").partition(": ")[0]
    return told


if __name__ == "__main__":
    print("python -m mixer_jax.NAME, of which --help lists the flags:\n")
    for name, told in commands().items():
        print(f"  {name:10} {told}")
