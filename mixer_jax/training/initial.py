"""Where training starts from, if not from random numbers: the parameters of another run, or of a file of weights."""

from pathlib import Path
from typing import Any

import numpy as np

from mixer_jax.errors import UserError
from mixer_jax.interop.weights import COMPUTED_WITH, from_layout, read_file, require_same_shapes
from mixer_jax.models import MlpMixer, param_shapes
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training.inference import Classifier


def initial_params(source: str, model: MlpMixer, image_shape: tuple[int, int, int]) -> Any:
    """Reads the parameters of `config.init_from`; says in one line each what is not taken over.

    Args:
      source: a run directory, of which it is the best epoch's, or a file that `mixer_jax.convert` reads.
      model: the Flax module that they are for.
      image_shape: (height, width, channels) of the images that it sees.

    Returns:
      The parameters, host arrays; with a head of zeros if there is another number of classes.

    Raises:
      UserError: if they cannot be read, or are of a model of other sizes.
    """
    if Path(source).is_dir():
        classifier = Classifier(RunDirectory(source))
        params, fields = classifier.params, {name: getattr(classifier.model, name) for name in COMPUTED_WITH}
    elif Path(source).exists():
        params, fields, _ = from_layout(read_file(Path(source)), source)
    else:
        raise UserError(f"config.init_from={source}: there is no such run directory or file")
    for name in COMPUTED_WITH:
        if fields[name] != getattr(model, name):
            print(
                f"warning: {source} computed with {name} {fields[name]}, config.model.{name} is {getattr(model, name)}"
            )
    like = param_shapes(model, image_shape)
    there, here = params["head"]["kernel"].shape[-1], model.num_classes
    if there != here:
        print(f"{source} tells {there} classes apart, not {here}: the head starts from zero")
        params = params | {"head": {name: np.zeros(x.shape, x.dtype) for name, x in like["head"].items()}}
    require_same_shapes(params, like, f"config.init_from={source}")
    return params
