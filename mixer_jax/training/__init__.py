"""Training. `train` runs everything that a config asks for, from the first checks to the results.

From the outermost module to the innermost:

  run.py        `train`: check everything, claim the run directory
  stages.py     train one seed or several (seeds.py), score the test set, write the report
  loop.py       one run: epochs, validation, checkpoints, early stopping
  epoch.py      the training steps of an epoch, in dispatches
  trainer.py    `Trainer`: the input pipeline and the compiled programs of one run (setup.py builds its parts)
  step.py       `DeviceFunctions`: what runs on the devices; parallel.py compiles it with pmap
"""

from mixer_jax.training.ending import check_epochs, stale
from mixer_jax.training.epoch import Diverged, require_finite
from mixer_jax.training.interruption import Interrupted
from mixer_jax.training.run import train
from mixer_jax.training.trainer import Trainer

__all__ = ["Diverged", "Interrupted", "Trainer", "check_epochs", "require_finite", "stale", "train"]
