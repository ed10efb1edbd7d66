"""Run a command: mixer-jax NAME ..., or python -m mixer_jax.NAME ..."""

import ast
import runpy
import sys
from pathlib import Path

from mixer_jax.errors import did_you_mean


def main() -> None:
    """Run the command named by the first argument; without one, or with --help, list all commands."""
    known = commands()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        lines = ["mixer-jax NAME ..., or python -m mixer_jax.NAME ...; --help after a name lists its flags.", ""]
        print("\n".join(lines + [f"  {command:10} {does}" for command, does in known.items()]))
        return
    if name not in known:
        print(f"error: unknown command {name!r}{did_you_mean(name, known)}; valid: {', '.join(known)}", file=sys.stderr)
        sys.exit(2)
    sys.argv[:2] = [f"mixer-jax {name}"]
    runpy.run_module(f"mixer_jax.{name}", run_name="__main__", alter_sys=False)


def commands() -> dict[str, str]:
    """Return a one-line description of each command, by name."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        tests = [ast.unparse(node.test) for node in tree.body if isinstance(node, ast.If)]
        if any(test.startswith("__name__") for test in tests) and file.stem != Path(__file__).stem:
            found[file.stem] = (ast.get_docstring(tree) or "").partition(": ")[0]
    return found


if __name__ == "__main__":
    main()
