"""Compare runs and published numbers: python -m mixer_jax.compare RUN_OR_STUDY ... [--output DIR] [--merge]

Each path is a run directory (of one or several seeds), a study directory, or a comparison.json from this command.
configs/results/published_cifar10.json has numbers that others published. --merge joins rows with the same title and
recipe into one row with all their seeds, for example if several machines trained parts of a study. A table for each
dataset is printed. The files written are comparison.html (with charts), the tables as .md, .tex and .csv,
comparison.json, curves.png and, if the models differ in size, costs.png.
"""

from pathlib import Path

from mixer_jax import cli
from mixer_jax.studies import compare, require_free
from mixer_jax.studies.comparison import WRITTEN


def main(argv: list[str]) -> int:
    """Parse the command line, compare, and return the exit code."""
    values, arguments = cli.parse_flags(argv, _define_flags, __doc__, num_paths=None)
    paths, output = list(map(Path, arguments)), Path(values.output or "comparison")
    require_free(output, paths)
    cli.require_new((output / name for name in WRITTEN), values.overwrite)
    print(compare(paths, output, values.merge, values.rows))
    return 0


def _define_flags(define: cli.Define) -> None:
    define.output("folder for the results; by default comparison")
    define.string("rows", "", "regular expression that the titles of the rows must match")
    define.boolean("merge", False, "merge rows with the same title and recipe")


if __name__ == "__main__":
    cli.run(main)
