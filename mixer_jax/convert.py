"""Convert Mixer weights: python -m mixer_jax.convert FROM TO [--layout timm]

FROM is a run directory; a file from the paper (.npz), from timm or lucidrains' mlp-mixer-pytorch (.safetensors, .pth
and others), or from this command; the folder of such a file; its URL (https:// or gs://); or the name of a published
Mixer, such as "B/16 imagenet21k" or timm/mixer_b16_224.goog_in21k_ft_in1k.

TO is a .npz file (in the paper's layout), a .safetensors file (in timm's, unless --layout says otherwise), or a folder,
in which model.safetensors is written. The other commands take files and folders of all these kinds as --workdir. TO
keeps the class names and the preprocessing; with --layout=timm, a folder also has them in a config.json, from which
timm.create_model("local-dir:TO", pretrained=True) rebuilds a model of a size that timm has. For a model of another
size, the command prints how to build it.

--image_size is the size of the images that TO is for. At a multiple of the old resolution, token mixing is tiled as in
the paper's appendix C; at any other resolution, or with --interpolate, it is interpolated. If FROM does not record the
size of its own images, --image_size is taken as that size as well; if it does not match FROM's number of patches,
FROM's images are assumed to be square.

python -m mixer_jax.convert "B/16 imagenet1k" mixer_b16
"""

import os
import re
from pathlib import Path

from mixer_jax import cli
from mixer_jax.errors import UserError, one_of
from mixer_jax.inference import Classifier, Known, architecture, at_image_size, load, require_mixer
from mixer_jax.messages import warn
from mixer_jax.weights import READERS

LAYOUTS_OF = {".npz": ("paper",), ".safetensors": ("timm", "lucidrains", "paper"), "": ("paper", "timm")}


def main(argv: list[str]) -> int:
    """Parse the command line, convert, and return the exit code."""
    values, paths = cli.parse_flags(argv, _define_flags, __doc__, num_paths=2)
    source, target = paths[0], Path(paths[1])
    suffix = target.suffix if target.suffix in LAYOUTS_OF else ""
    if not suffix and target.suffix.lower() in READERS:
        raise UserError(f"{target}: weights are written as .npz or .safetensors, or into a folder: choose such a name")
    layouts = LAYOUTS_OF[suffix]
    layout = values.layout or layouts[0]
    if layout not in layouts:
        raise one_of(f"layout of {suffix or 'a folder'}", layout, layouts)
    written = Classifier.files(target, layout)
    is_folder = not suffix and os.path.isdir(target)
    if is_folder and (others := sorted({path.name for path in target.glob("[!.]*")} - {path.name for path in written})):
        raise UserError(f"{target} holds other files ({others[0]}, ...): choose another name")
    cli.require_new(written if is_folder else [target, *written], values.overwrite, "another name")
    size = _image_size(values.image_size)
    try:
        classifier = load(source, values.checkpoint, Known(size, values.patch_size, values.channels))
    except UserError as error:  # the library names arguments
        named = re.sub(r"\b(set|and) (checkpoint|image_size|patch_size|channels)\b", r"\1 --\2", str(error))
        raise UserError(named) from error
    print(f"{source}: {classifier.origin.found}")
    if size:
        classifier = _resized(classifier, size, values.interpolate)
    described = layout == "timm" and len(written) > 1  # by a config.json
    if suffix or layout != "paper":  # only mixer_jax reads a folder in the paper's layout
        for line in classifier.computed_otherwise(layout, normalised=described):
            warn(line)
    written = classifier.save(target, layout)
    print(f"wrote {' and '.join(map(str, written))}, in the layout of {layout}")
    if described and not architecture(require_mixer(classifier)):
        print("timm creates no Mixer of this size by name: call its MlpMixer with the model_args of config.json")
    return 0


def _define_flags(define: cli.Define) -> None:
    define.string(
        "layout", None, "layout of TO: timm, lucidrains or paper for a .safetensors; paper or timm for a folder"
    )
    define.string("checkpoint", "best", "for a run: best, latest or a step; for a file: which weights in it")
    define.boolean("overwrite", False, "replace existing weights; a folder must hold nothing else")
    define.list("image_size", [], "HEIGHT,WIDTH of the images that TO is for")
    define.integer("patch_size", None, "patch size of FROM, if unrecorded", lower_bound=1)
    define.integer("channels", None, "channels of FROM, if unrecorded", lower_bound=1)
    define.boolean("interpolate", False, "for another size: interpolate token mixing instead of tiling it")


def _image_size(sides: list[str]) -> tuple[int, ...]:
    """Return (height, width), or () if none is given."""
    if not all(side.isdecimal() and int(side) > 0 for side in sides) or len(sides) > 2:
        raise UserError(f"--image_size={','.join(sides)}: give HEIGHT,WIDTH in pixels")
    return (int(sides[0]), int(sides[-1])) if sides else ()


def _resized(classifier: Classifier, size: tuple[int, ...], interpolate: bool) -> Classifier:
    model = require_mixer(classifier)
    patch = model.patch_size
    if any(side % patch for side in size):
        given = ",".join(map(str, size))
        raise UserError(f"--image_size={given}: give HEIGHT,WIDTH, multiples of the patches' {patch} pixels")
    if size == classifier.input_shape[:2]:
        return classifier
    classifier, done = at_image_size(classifier, size, model.tokens_mlp_dim if interpolate else None)
    if done:
        print(done)
    return classifier


if __name__ == "__main__":
    cli.run(main)
