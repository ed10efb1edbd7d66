"""Compare training with PyTorch, step by step: python -m mixer_jax.parity --config configs/digits.py

Both sides start from the same weights and take the same batches, in float32, without augmentation, dropout or EMA.
Their losses are compared at each of the first `--steps` steps, with Adam (learning rate 1e-3) and SGD (0.01, momentum
0.9). The model, batch size, schedule, weight decay, clipping and label smoothing are the config's. Needs PyTorch.
"""

from pathlib import Path

import numpy as np

from mixer_jax import cli, data
from mixer_jax.errors import UserError
from mixer_jax.reporting import plot_trajectories
from mixer_jax.storage import write_json, writing
from mixer_jax.training import Trainer

STEPS = 200
WRITTEN = ("parity.json", "parity.png")
# Optimisers that PyTorch has under the same name, each with a usual learning rate and momentum.
COMPARED = {
    "adam": {"learning_rate": 1e-3, "momentum": None},
    "sgd": {"learning_rate": 0.01, "momentum": 0.9},
}


def main(argv: list[str]) -> int:
    """Parse the command line, compare, and return the exit code."""
    values, config, name = cli.parse(argv, _define_flags, __doc__)
    try:
        from mixer_jax.benchmarks import trajectory
    except ImportError as error:
        raise UserError(f"{error}; pip install torch") from error
    if config.num_seeds > 1:
        raise UserError(f"config.num_seeds={config.num_seeds}: one run is compared at a time")
    output = Path(values.output or Path("parity") / name)
    cli.require_new([output / name for name in WRITTEN], values.overwrite)
    plain, dataset = trajectory.without_randomness(config), data.load(config.dataset)
    if dataset.streamed:
        raise UserError(
            "a streamed dataset cannot be compared: raise config.dataset.memory_budget_gib if it fits into memory"
        )
    report = {"config": name, "optimizers": {}}
    for optimizer, settings in COMPARED.items():
        plain.optimizer.update(name=optimizer, b1=None, b2=None, eps=None, **settings)
        trainer = Trainer(plain, dataset)
        if values.steps is not None and values.steps > trainer.total_steps:
            raise UserError(f"--steps={values.steps}: the config has {trainer.total_steps} steps")
        steps = report["steps"] = values.steps or min(STEPS, trainer.total_steps)
        print(f"{optimizer}: {steps} steps here, and then in PyTorch", flush=True)
        ours, theirs = trajectory.our_losses(trainer, steps), trajectory.torch_losses(trainer, steps)
        difference = np.abs(ours - theirs) / theirs
        report["optimizers"][optimizer] = {
            "learning_rate": plain.optimizer.learning_rate,
            "largest_relative_difference": float(difference.max()),
            "ours": ours.tolist(),
            "torch": theirs.tolist(),
        }
        print(
            f"{optimizer}: loss {ours[0]:.4f} at first, after {steps} steps {ours[-1]:.6f} here and "
            f"{theirs[-1]:.6f} in PyTorch; the largest relative difference of any step is {difference.max():.1e}"
        )
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "parity.json", report)
        plot_trajectories(report, output / "parity.png")
    print(f"{output}/parity.json, parity.png")
    return 0


def _define_flags(define: cli.Define) -> None:
    define.integer("steps", None, f"training steps; by default {STEPS}, or as many as the config has", 1)
    define.output("folder for the results; by default parity/<config>")


if __name__ == "__main__":
    cli.run(main)
