"""Write a run's report: python -m mixer_jax.report runs/digits

report.html is one file that needs no network. It shows the results, curves by epoch and by step, the confusion matrix,
the scores of every class, the most confident mistakes with the nearest training images, and what each token adds to the
logits; also the weights of token mixing and patch embedding, calibration, config and environment. README.md is the
model card. Both are written at the end of training. This command writes them again; it also writes the report of an
unfinished run, or those of several seeds. For weights (a file, folder, URL or name), this command writes a page with
pictures of the model's token mixing and patch embedding.
"""

from pathlib import Path

from absl import flags

from mixer_jax import cli
from mixer_jax.errors import UserError
from mixer_jax.inference import load, load_run, weights_in
from mixer_jax.reporting.report import draw_curves, unfinished, write_report, write_weights_report
from mixer_jax.run_directory import RunDirectory
from mixer_jax.storage import writing


def main(argv: list[str]) -> int:
    """Parse the command line, write the report, and return the exit code."""
    values, paths = cli.parse_flags(argv, _define_flags, __doc__, num_paths=1)
    run = RunDirectory(paths[0])
    if not run.exists or weights_in(run.path):
        return _of_weights(paths[0], values)
    if values.output:
        raise UserError(f"--output={values.output}: the report of a run is always {run.report_file}")
    for one, _ in run.runs(run.config()):
        _of_run(one)
    return 0


def _define_flags(define: cli.Define) -> None:
    define.output("page to write, for weights; by default weights.html")


def _of_run(run: RunDirectory) -> None:
    if not run.read_metrics():
        raise UserError(f"the run in {run.path} has not finished its first epoch yet")
    classifier = load_run(run)
    results = run.read_results() or unfinished(run, classifier)
    draw_curves(run, results)  # an older release may have drawn them differently
    how_far = f": {results.cautions[0]}" if results.test_accuracy is None else ""
    print(f"wrote {write_report(run, classifier, results)}{how_far}")


def _of_weights(path: str, values: flags.FlagValues) -> int:
    classifier, output = load(path), Path(values.output or "weights.html")
    cli.require_new([output], values.overwrite)
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_weights_report(classifier, output)
    print(f"wrote {output}")
    return 0


if __name__ == "__main__":
    cli.run(main)
