"""Converts Mixer weights: python -m mixer_jax.convert FROM TO [--layout timm]

FROM is a file of the paper's (.npz), of timm or lucidrains' mlp-mixer-pytorch (.safetensors, .pth), the address of one
(https:// or gs://), or a run directory. TO is a .npz (the paper's layout), a .safetensors (timm's, or --layout
lucidrains), or a new run directory, which loads as any other.

python -m mixer_jax.convert gs://mixer_models/imagenet1k/Mixer-B_16.npz runs/mixer_b16
"""

import dataclasses
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import requests
from absl import flags
from tqdm import tqdm

from mixer_jax import cli
from mixer_jax.config import default_config
from mixer_jax.errors import UserError, one_of
from mixer_jax.interop.weights import (
    COMPUTED_WITH,
    LARGEST_FILE,
    LAYOUTS,
    from_layout,
    read_file,
    to_layout,
    write_file,
)
from mixer_jax.run_directory import RunDirectory, writing
from mixer_jax.training.checkpoints import Checkpoint, Checkpoints
from mixer_jax.training.inference import Classifier

SUFFIXES = {".npz": ("paper",), ".safetensors": ("timm", "lucidrains")}
PARTIAL = ("token_mixing", "channel_mixing", "pre_head_norm")  # without one of them it is nobody else's Mixer


@dataclasses.dataclass(frozen=True)
class Weights:
    """A Mixer's parameters, and what its model computes with them: fields of `config.model` and `image_shape`."""

    params: dict[str, Any]
    fields: dict[str, Any]
    label_names: tuple[str, ...]
    normalization: tuple[tuple[float, ...], tuple[float, ...]]
    found: str


def main(argv: list[str]) -> int:
    """Parses the command line and converts; returns the exit code."""
    values, paths = cli.parse_flags(argv, _define_flags, __doc__, num_paths=2)
    source, target = paths[0], Path(paths[1])
    if target.suffix not in SUFFIXES and values.layout:
        raise UserError(f"--layout={values.layout}: a run directory has no layout")
    layout = values.layout or SUFFIXES.get(target.suffix, ("",))[0]
    if target.suffix in SUFFIXES and layout not in SUFFIXES[target.suffix]:
        raise one_of(f"layout of {target.suffix}", layout, SUFFIXES[target.suffix])
    if target.exists():
        raise UserError(f"{target} is there already: choose another name")
    weights = _from_run(source, values.checkpoint) if Path(source).is_dir() else _from_file(source)
    print(f"{source}: {weights.found}")
    if layout:
        _write_file(weights, target, layout)
    else:
        _write_run(weights, target)
    print(f"wrote {target}{f', as {layout} keeps it' if layout else ', a run directory'}")
    return 0


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("layout", None, "of a .safetensors: timm, the default, or lucidrains", flag_values=values)
    flags.DEFINE_string("checkpoint", "best", "of a run directory: best, latest, or a step", flag_values=values)


def _from_file(source: str) -> Weights:
    with _local(source) as path:
        params, fields, layout = from_layout(read_file(path), source)
    height, width, channels = fields["image_shape"]
    count = sum(x.size for x in jax.tree.leaves(params))
    described = fields["variant"] or f"{fields['num_blocks']} blocks of {fields['hidden_dim']}"
    found = f"{layout}, {described}, {count:,} parameters, {height}x{width}x{channels}, {fields['num_classes']} classes"
    names = tuple(f"class {i}" for i in range(fields["num_classes"]))
    # The paper's and timm's Mixers see pixels from -1 to 1.
    return Weights(params, fields, names, ((0.5,) * channels, (0.5,) * channels), found)


def _from_run(source: str, checkpoint: str) -> Weights:
    run = RunDirectory(source)
    classifier = Classifier(run, checkpoint)
    model, described = classifier.model, run.described()
    for field in PARTIAL:
        if not getattr(model, field):
            raise UserError(f"{source}: a Mixer with config.model.{field}=False is nobody else's")
    sizes = ("patch_size", "num_blocks", "hidden_dim", "tokens_mlp_dim", "channels_mlp_dim", "num_classes")
    fields = {name: getattr(model, name) for name in (*sizes, *COMPUTED_WITH)}
    fields["image_shape"] = classifier.input_shape
    found = f"run directory, {classifier.config.model.variant}, {checkpoint} of step {classifier.step}"
    return Weights(classifier.params, fields, classifier.label_names, (described["mean"], described["std"]), found)


def _write_file(weights: Weights, target: Path, layout: str) -> None:
    for field in COMPUTED_WITH:
        here, there = weights.fields[field], getattr(LAYOUTS[layout], field)
        if here != there:
            print(f"warning: {layout} computes with {field} {there}, this model with {here}: logits differ a little")
    partial = target.with_name(f".{target.name}.partial{target.suffix}")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(partial, to_layout(weights.params, layout))
        partial.replace(target)


def _write_run(weights: Weights, target: Path) -> None:
    config = default_config()
    config.dataset.name, config.dataset.normalization = "folder", "paper"
    config.model.variant = f"S/{weights.fields['patch_size']}"
    config.model.update({k: v for k, v in weights.fields.items() if k in config.model and v is not None})
    mean, std = weights.normalization
    described = {"label_names": weights.label_names, "image_shape": weights.fields["image_shape"]}
    described |= {"mean": mean, "std": std, "streamed": False, "fingerprint": ""}
    run, checkpoints = RunDirectory(target), Checkpoints(target / "checkpoints")
    state = {"seed": np.int32(0), "step": np.int32(0), "params": weights.params, "opt_state": (), "ema_params": ()}
    with run.held():
        run.claim(config, described)
        try:
            checkpoints.save(Checkpoint(0, state, weights.params, {"step": 0, "converted": weights.found}))
            checkpoints.wait()
        except OSError as error:
            raise UserError(str(error)) from error
        finally:
            checkpoints.close()


@contextmanager
def _local(source: str) -> Iterator[Path]:
    """A file, downloaded if need be."""
    if source.startswith("gs://"):
        source = f"https://storage.googleapis.com/{source.removeprefix('gs://')}"
    if not source.startswith("https://"):
        if "://" in source:
            raise UserError(f"{source}: only https:// and gs:// are downloaded from")
        yield Path(source)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / os.path.basename(source.partition("?")[0])
        try:
            with requests.get(source, stream=True, timeout=30) as response, path.open("wb") as file:
                response.raise_for_status()
                size = int(response.headers.get("content-length", 0))
                with tqdm(total=size or None, unit="B", unit_scale=True, leave=False, disable=None) as bar:
                    for chunk in response.iter_content(2**20):
                        file.write(chunk)
                        bar.update(len(chunk))
                        if bar.n > LARGEST_FILE:
                            raise UserError(f"{source} is larger than any Mixer")
        except (requests.RequestException, OSError) as error:
            raise UserError(f"cannot download {source}: {' '.join(str(error).split())[:200]}") from error
        yield path


if __name__ == "__main__":
    cli.run(main)
