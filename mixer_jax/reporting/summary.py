"""The last words of a run."""

from typing import Any

from mixer_jax.run_directory import RunDirectory


def summarize(run: RunDirectory, results: dict[str, Any]) -> str:
    """A few lines: how good, how long, on what, and where things are."""
    return (
        f"{results['dataset']}, {results['model']}, {results['num_params']:,} parameters, seed {results['seed']}\n"
        f"  test accuracy   {results['test_accuracy']:.2f}% "
        f"(epoch {results['best_epoch']}, the best on {results['selected_on']}), "
        f"{results['last_test_accuracy']:.2f}% (epoch {results['epochs']}, the last); "
        f"{results['test_examples']:,} images\n"
        f"  trained         {results['epochs']} epochs in {results['train_seconds']:.1f} s and "
        f"{results['compile_seconds']:.1f} s to compile, {results['images_per_second']:,.0f} images/s, "
        f"on {results['devices']} x {results['device_kind']}, {results['dtype']}\n"
        f"  results         {run.results_file}\n"
        f"  curves          {run.curves_file}\n"
        f"  TensorBoard     tensorboard --logdir {run.tensorboard}\n"
        f"  checkpoints     {run.checkpoints}"
    )
