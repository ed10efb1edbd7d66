"""Write a run's report: python -m mixer_jax.report runs/digits

report.html is one file that needs no network: the results, curves, confusion, the most confident mistakes, the hardest
classes, the weights of token mixing and patch embedding, calibration, config and environment. README.md is the model
card. Training ends by writing both; this command writes them again, or the report of an unfinished run.
"""

from mixer_jax import cli
from mixer_jax.errors import UserError
from mixer_jax.inference import load_run
from mixer_jax.reporting.report import draw_curves, unfinished, write_report
from mixer_jax.run_directory import RunDirectory


def main(argv: list[str]) -> int:
    """Parse the command line, write the report, and return the exit code."""
    _, paths = cli.parse_flags(argv, lambda values: None, __doc__, num_paths=1)
    run = RunDirectory(paths[0])
    if not run.config_file.exists():
        raise UserError(f"{run.path} is no run directory: it has no {run.config_file.name}")
    results = run.read_results()
    if results and results.seeds:
        raise UserError(f"{run.path} holds {len(results.seeds)} runs: give one, such as {run.path}/seed_0")
    if not run.read_metrics():
        raise UserError(f"cannot read {run.metrics_file}: it holds no epoch")
    classifier = load_run(run)
    results = results or unfinished(run, classifier)
    draw_curves(run, results)  # an older release may have drawn them differently
    how_far = classifier.origin.unfinished
    print(f"wrote {write_report(run, classifier, results)}{how_far and f': {how_far}'}")
    return 0


if __name__ == "__main__":
    cli.run(main)
