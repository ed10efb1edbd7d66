"""The model card of a run, README.md in its directory, for users of the model."""

import json
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import default_config, flat
from mixer_jax.records import Results
from mixer_jax.reporting.summary import duration, sentence
from mixer_jax.reporting.text import markdown_text


def model_card(config: ConfigDict, info: dict[str, Any], results: Results) -> str:
    """Return the model card of a finished run, in Markdown; `info` is the `Dataset.info` of its dataset."""
    r, (height, width, channels) = results, info["image_shape"]
    defaults = flat(default_config())
    changed = [f"    {path} = {json.dumps(value)}" for path, value in flat(config).items() if value != defaults[path]]
    recipe = "\n".join(changed) or "    the defaults"
    labels = info["label_names"]
    names = ", ".join(map(markdown_text, labels[:20])) + (", ..." if len(labels) > 20 else "")
    mean, std = (", ".join(f"{x:.4f}" for x in info[key]) for key in ("mean", "std"))
    chosen = "the test images themselves" if r.selected_on == "test" else "validation images"
    cautions = "".join(f"{markdown_text(sentence(caution))}\n\n" for caution in r.cautions)
    hardware = f"{r.devices} x {r.device_kind}, {r.dtype}, jax {r.versions['jax']}"
    return f"""# {r.dataset}, {r.model}

A model of {r.num_params:,} parameters that classifies images into {len(labels)} classes: {names}.

## Result

{r.test_accuracy:.2f}% of {r.test_examples:,} test images at epoch {r.best_epoch}, chosen on {chosen};
{r.last_test_accuracy:.2f}% at the last epoch. Test loss {r.test_loss:.4f}. This is one run (seed {r.seed}); other seeds
give other numbers.

{cautions}## Data

{r.dataset}, {height}x{width}x{channels}, fingerprint {r.data_fingerprint}. Pixels from 0 to 1 are normalised by
mean {mean} and standard deviation {std}.

## Recipe

{r.epochs:g} epochs in {duration(r.train_seconds)} on {hardware}. Settings that differ from the defaults of
mixer_jax/config.py:

{recipe}

## Use

    python -m mixer_jax.predict --workdir THIS_FOLDER IMAGE ...
    python -m mixer_jax.evaluate --workdir THIS_FOLDER

## Limits

The model knows only its {len(labels)} classes, and assigns one of them to every image. Its accuracy on images other
than the test images, and its fairness across groups of people, were not measured.
"""
