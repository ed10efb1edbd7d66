"""Models and timm: its folders are read, and ours are read by timm, with the same images, logits and predictions."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_sample_images

from made_models import made_classifier
from mixer_jax.errors import UserError
from mixer_jax.inference import at_image_size, load
from mixer_jax.weights import LAYOUTS, from_layout

torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The paths of photographs, as files without loss."""
    folder = tmp_path_factory.mktemp("photos")
    for i, image in enumerate(load_sample_images().images):
        Image.fromarray(image).save(folder / f"{i}.png")
        Image.fromarray(image[:, :200]).save(folder / f"{i}_upright.png")
    paths = sorted(folder.iterdir())
    try:
        import skimage.data
    except ImportError:
        return paths
    names = ["astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "moon.png", "motorcycle_left.png"]
    names += ["hubble_deep_field.jpg", "retina.jpg", "rocket.jpg"]
    more = [Path(skimage.data.__file__).with_name(name) for name in names]
    return paths + [path for path in more if path.exists()]


def as_timm_does(model, config, paths):
    """The pixels and the logits of image files, prepared by timm."""
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, pretrained_cfg=config))
    batch = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
    mean, std = (torch.tensor(config[key]).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        return 255 * (batch * std + mean).numpy().transpose(0, 2, 3, 1), model.eval()(batch).numpy()


@pytest.mark.parametrize(
    ("size", "mean", "std", "crop", "interpolation"),
    [
        ((64, 64), [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], 0.875, "bilinear"),
        ((64, 64), [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], 0.95, "bicubic"),
        ((128, 128), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 0.9, "bicubic"),
        ((48, 80), [0.1, 0.2, 0.3], [0.3, 0.4, 0.5], 0.875, "bicubic"),
        ((96, 96), [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], 1.0, "lanczos"),
    ],
)
def test_a_folder_of_timms_prepares_images_as_timm_does(size, mean, std, crop, interpolation, photos, tmp_path):
    torch.manual_seed(0)
    model = timm.models.mlp_mixer.MlpMixer(7, size, patch_size=16, num_blocks=2, embed_dim=24)
    config = {"input_size": [3, *size], "mean": mean, "std": std, "crop_pct": crop, "interpolation": interpolation}
    names = {str(i): f"name {i}" for i in range(7)}
    content = {
        "architecture": "mixer_s16_224",
        "label_names": names,
        "pretrained_cfg": config | {"crop_mode": "center"},
    }
    (tmp_path / "config.json").write_text(json.dumps(content))
    save_file({key: x.numpy() for key, x in model.state_dict().items()}, tmp_path / "model.safetensors")
    classifier = load(tmp_path)
    assert classifier.label_names == tuple(names.values())
    theirs, logits = as_timm_does(model, config, photos)
    pixels = np.stack([classifier.read(path) for path in photos])
    assert np.abs(pixels - theirs).max() < 0.01
    np.testing.assert_allclose(classifier.logits(pixels), logits, rtol=1e-5, atol=1e-5)
    again = np.stack([classifier.read(np.asarray(Image.open(path).convert("RGB"))) for path in photos])
    np.testing.assert_array_equal(again, pixels)
    # The same after it was written, in any layout.
    for layout in ("paper", "timm"):
        classifier.save(tmp_path / layout, layout)
        assert load(tmp_path / layout).predict(photos) == classifier.predict(photos)
    assert json.loads((tmp_path / "timm" / "config.json").read_text())["pretrained_cfg"].items() >= config.items()


@pytest.mark.parametrize("size", [(224, 224), (448, 448)])
def test_timm_creates_a_mixer_of_its_sizes_from_our_folder(size, photos, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("mixer_s32_224", num_classes=5)
    torch.nn.init.normal_(model.head.weight)
    save_file({key: x.numpy() for key, x in model.state_dict().items()}, tmp_path / "x.safetensors")
    classifier = load(tmp_path / "x.safetensors")
    assert classifier.config.variant == "S/32"
    if size != (224, 224):
        classifier, done = at_image_size(classifier, size)
        assert "repeated in 2x2 tiles" in done  # whose token mixing is wider
    names, preprocessing = tuple("abcde"), dataclasses.replace(classifier.preprocessing, resize="bicubic/0.875")
    classifier = dataclasses.replace(classifier, label_names=names, preprocessing=preprocessing)
    classifier.save(tmp_path / "ours", "timm")
    model = timm.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True)
    pixels = np.stack([classifier.read(path) for path in photos[:3]])
    theirs, logits = as_timm_does(model, model.pretrained_cfg, photos[:3])
    assert np.abs(pixels - theirs).max() < 0.01
    np.testing.assert_allclose(classifier.logits(pixels, 3), logits, rtol=1e-4, atol=1e-4)
    for row, prediction in zip(logits, classifier.predict(photos[:3]), strict=True):
        assert [name for name, _ in prediction] == [names[i] for i in np.argsort(-row)]


@pytest.mark.parametrize("image_shape", [(32, 32, 3), (16, 32, 1)])
@pytest.mark.parametrize("layout", ["timm", "lucidrains"])
def test_a_mixer_of_any_sizes_goes_into_their_modules(layout, image_shape, tmp_path):
    sizes = {"hidden_dim": 12, "tokens_mlp_dim": 24, "channels_mlp_dim": 12}
    epsilon = LAYOUTS[layout].layer_norm_epsilon
    classifier = made_classifier(image_shape, gelu="exact", layer_norm_epsilon=epsilon, **sizes)
    path, *_ = classifier.save(tmp_path / "model.safetensors", layout)
    if layout == "timm":
        arguments = json.loads((tmp_path / "config.json").read_text())["model_args"]
        module = timm.models.mlp_mixer.MlpMixer(3, **arguments)
    else:
        lucidrains = pytest.importorskip("mlp_mixer_pytorch")
        factors = {"expansion_factor": 2, "expansion_factor_token": 1}  # the first is that of the tokens
        named = {"image_size": image_shape[:2], "channels": image_shape[2], "patch_size": 4, "dim": 12, "depth": 2}
        module = lucidrains.MLPMixer(**named, num_classes=3, **factors)
    module.load_state_dict({key: torch.from_numpy(x) for key, x in load_file(path).items()}, strict=True)
    images = np.random.default_rng(0).uniform(-1, 1, (3, *image_shape)).astype(np.float32)
    with torch.no_grad():
        logits = module.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    ours = classifier.model.apply({"params": classifier.params}, images)
    np.testing.assert_allclose(ours, logits, rtol=1e-4, atol=1e-4)


OTHERS = {
    "gmixer_24_224": "is a gMixer, whose MLPs are gated",
    "resmlp_12_224": "is a ResMLP, not a Mixer",
    "gmlp_ti16_224": "is a gMLP, not a Mixer",
    "vit_tiny_patch16_224": "is a Vision Transformer, not a Mixer",
    "deit_tiny_patch16_224": "is a Vision Transformer, not a Mixer",
    "swin_tiny_patch4_window7_224": "is a transformer, not a Mixer",
    "convmixer_768_32": "is a ConvMixer, not a Mixer",
    "resnet18": "is a ResNet, not a Mixer",
    "efficientnet_b0": "is a convolutional network, not a Mixer",
    "convnext_tiny": "is a convolutional network, not a Mixer",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_of_timms_are_named(name):
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    arrays = {key: np.broadcast_to(np.float32(0), x.shape) for key, x in state.items()}
    with pytest.raises(UserError, match=f"^x.*{OTHERS[name]}") as caught:
        from_layout(arrays, "x")
    assert "\n" not in str(caught.value)
