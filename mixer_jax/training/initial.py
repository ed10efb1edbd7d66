"""Where training starts from, if not from random numbers: the parameters of another run, or of a file of weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mixer_jax.errors import UserError
from mixer_jax.interop.weights import from_layout, read_file, require_same_shapes
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training.inference import Classifier

COMPUTED_WITH = ("gelu", "layer_norm_epsilon")


def initial_params(source: str, model: Any, like: Any, say: Callable[[str], None] = print) -> Any:
    """Reads the parameters of `config.init_from`.

    Args:
      source: a run directory, of which it is the best epoch's, or a file that `mixer_jax.convert` reads.
      model: the Flax module that they are for.
      like: the shapes of its parameters.
      say: told in one line each what is not taken over.

    Returns:
      The parameters, host arrays; with a head of zeros if there is another number of classes.

    Raises:
      UserError: if they cannot be read, or are of a model of other sizes.
    """
    if Path(source).is_dir():
        classifier = Classifier(RunDirectory(source), warn=say)
        params, fields = classifier.params, {name: getattr(classifier.model, name) for name in COMPUTED_WITH}
    elif Path(source).exists():
        params, fields, _ = from_layout(read_file(Path(source)), source)
    else:
        raise UserError(f"config.init_from={source}: there is no such run directory or file")
    for name in COMPUTED_WITH:
        if fields[name] != getattr(model, name):
            say(f"warning: {source} computed with {name} {fields[name]}, config.model.{name} is {getattr(model, name)}")
    there, here = params["head"]["kernel"].shape[-1], model.num_classes
    if there != here:
        say(f"{source} tells {there} classes apart, not {here}: the head starts from zero")
        params = params | {"head": {name: np.zeros(x.shape, x.dtype) for name, x in like["head"].items()}}
    require_same_shapes(params, like, f"config.init_from={source}")
    return params
