"""Downloads from a server on this machine: once, resumed, checked, and refused in one line."""

import base64
import hashlib
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from made_models import some_images
from mixer_jax import convert
from mixer_jax.errors import UserError
from mixer_jax.inference import load
from mixer_jax.models import MlpMixer
from mixer_jax.weights import PUBLISHED, downloaded, to_layout
from mixer_jax.weights import download as module
from mixer_jax.weights.published import GITHUB
from support import GOLDEN

PAPER, TIMM = GOLDEN / "paper_mixer_tiny.npz", GOLDEN / "timm_mixer_tiny.safetensors"
LARGEST = 2**30


class Server(ThreadingHTTPServer):
    """Serves `files` (path: content), knows ranges and ETags, and can break off after `cut` bytes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.headers, self.requests, self.cut = {}, {}, [], None
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.requests.append((self.path, asked))
        content = server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.headers.get("If-Range") == tag else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content) - start))
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        end = len(content) if server.cut is None else server.cut
        self.wfile.write(content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Server() as serving:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", serving.address)
        monkeypatch.setenv("HF_ENDPOINT", serving.address)
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def test_the_second_time_it_is_there(server):
    content = server.files["/w.npz"] = PAPER.read_bytes()
    for _ in range(2):
        path = downloaded(f"{server.address}/w.npz", LARGEST)
        assert path.read_bytes() == content
    assert server.requests == [("/w.npz", None)]
    assert sorted(p.name for p in path.parent.iterdir()) == ["lock", "w.npz"]


def test_a_download_that_broke_off_goes_on_where_it_stopped(server):
    content = server.files["/w.npz"] = np.random.default_rng(0).bytes(3_000_000)
    server.cut = 2_000_000
    line = r"cannot download .*w.npz: .*run the same command again to resume, or put the file at"
    with pytest.raises(UserError, match=line):
        downloaded(f"{server.address}/w.npz", LARGEST)
    server.cut = None
    assert downloaded(f"{server.address}/w.npz", LARGEST).read_bytes() == content
    start = int(server.requests[1][1].removeprefix("bytes=").removesuffix("-"))
    assert 1_000_000 <= start <= 2_000_000


def test_a_file_that_has_changed_meanwhile_starts_again(server):
    server.files["/w.npz"], server.cut = bytes(3_000_000), 2_000_000
    with pytest.raises(UserError, match="cannot download"):
        downloaded(f"{server.address}/w.npz", LARGEST)
    content = server.files["/w.npz"] = np.random.default_rng(0).bytes(2_500_000)
    server.cut = None
    assert downloaded(f"{server.address}/w.npz", LARGEST).read_bytes() == content


@pytest.mark.parametrize("stated", ["X-Linked-ETag", "x-goog-hash", "sha256"])
def test_a_wrong_checksum_is_refused(stated, server):
    content, other = PAPER.read_bytes(), hashlib.sha256(b"other").hexdigest()
    right = hashlib.sha256(content).hexdigest()
    server.files["/w.npz"] = content
    md5 = {c: base64.b64encode(hashlib.md5(c).digest()).decode() for c in (content, b"other")}
    headers = {
        "X-Linked-ETag": (f'"{right}"', f'"{other}"'),
        "x-goog-hash": (f"crc32c=AAAAAA==,md5={md5[content]}", f"crc32c=AAAAAA==,md5={md5[b'other']}"),
    }
    server.headers = {stated: headers[stated][1]} if stated in headers else {}
    with pytest.raises(
        UserError, match="w.npz has the (sha256|md5) [0-9a-f]+, not [0-9a-f]+, and was deleted"
    ) as caught:
        downloaded(f"{server.address}/w.npz", LARGEST, sha256=other[:8] if stated == "sha256" else "")
    assert "\n" not in str(caught.value)
    server.headers = {stated: headers[stated][0]} if stated in headers else {}
    path = downloaded(f"{server.address}/w.npz", LARGEST, sha256=right[:8] if stated == "sha256" else "")
    assert path.read_bytes() == content


def test_a_file_that_is_too_large_or_not_there(server):
    server.files["/w.npz"] = bytes(3_000_000)
    with pytest.raises(UserError, match="w.npz is larger than 2,000,000 bytes"):
        downloaded(f"{server.address}/w.npz", 2_000_000)
    with pytest.raises(UserError, match="cannot download .*no.npz: 404"):
        downloaded(f"{server.address}/no.npz", LARGEST)
    assert downloaded(f"{server.address}/no.json", LARGEST, optional=True) is None


@pytest.mark.parametrize("url", ["http://example.com/w.npz", "ftp://example.com/w.npz", "s3://bucket/w.npz"])
def test_other_addresses_are_refused(url, server):
    with pytest.raises(UserError, match="only https:// and gs:// URLs can be downloaded"):
        downloaded(url, LARGEST)


@pytest.mark.parametrize("path", ["", "/", "/weights/", "/.."])
def test_an_address_without_a_file_is_refused(path, server):
    with pytest.raises(UserError, match="does not end in the name of a file"):
        downloaded(f"https://example.com{path}", LARGEST)


def test_no_network_is_one_line_within_seconds(server, monkeypatch):
    with socket.socket() as unused:  # bound, but nobody listens
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{unused.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(
            UserError, match=r"cannot download gs://mixer_models/.*or put the file at /.*Mixer-B_16.npz"
        ):
            load("B/16 imagenet1k")
    with socket.socket() as silent:  # listens, and does not answer
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(module, "READ_SECONDS", 1.0)
        with pytest.raises(UserError, match="cannot download .*timed out") as caught:
            load("B/16 imagenet1k")
    assert time.monotonic() - start < 15
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["B/16 imagenet1k", "b/16-ImageNet1k", "mixer_b16_224.goog_in21k_ft_in1k"])
def test_a_name_is_downloaded_once(name, server, tmp_path):
    model = MlpMixer(3, patch_size=32, num_blocks=1, hidden_dim=8, tokens_mlp_dim=4, channels_mlp_dim=16)
    params = model.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)))["params"]
    np.savez(tmp_path / "paper.npz", **to_layout(params, "paper"))
    save_file(to_layout(params, "timm"), tmp_path / "timm.safetensors")
    server.files["/mixer_models/imagenet1k/Mixer-B_16.npz"] = (tmp_path / "paper.npz").read_bytes()
    of_timm = "/timm/mixer_b16_224.goog_in21k_ft_in1k/resolve/main/model.safetensors"
    server.files[of_timm] = (tmp_path / "timm.safetensors").read_bytes()
    first, second = load(name), load(name)
    assert len([path for path, _ in server.requests if not path.endswith(".json")]) == 1
    images = some_images(first)
    np.testing.assert_array_equal(first.logits(images), second.logits(images))
    jax.tree.map(np.testing.assert_array_equal, first.params, params)
    prepared = first.preprocessing
    assert (first.image_shape, first.input_shape, prepared.resize) == ((224, 224, 3), (224, 224, 3), "bicubic/0.875")
    assert (first.model.gelu, prepared.mean) == ("exact" if "mixer" in name else "tanh", (0.5,) * 3)


def test_any_model_of_the_hub_with_its_config(server, tmp_path):
    config = '{"architecture": "mixer_b16_224", "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0, 0, 0], '
    config += '"std": [1, 1, 1], "crop_pct": 1.0, "interpolation": "bilinear"}, "label_names": %s}'
    names = [f"Nr. {i}" for i in range(10)]
    server.files["/me/my-mixer/resolve/v2/config.json"] = (config % names).replace("'", '"').encode()
    server.files["/me/my-mixer/resolve/v2/model.safetensors"] = TIMM.read_bytes()
    model = load("hf-hub:me/my-mixer@v2")
    assert model.label_names == tuple(names)
    assert (model.preprocessing.mean, model.preprocessing.std) == ((0, 0, 0), (1, 1, 1))
    assert (model.image_shape, model.preprocessing.resize) == ((32, 32, 3), "bilinear")
    assert convert.main(["convert", "hf-hub:me/my-mixer@v2", str(tmp_path / "folder")]) == 0
    assert load(tmp_path / "folder").label_names == tuple(names)


WEIGHTS, CONFIG = (f"/me/it/resolve/main/{name}" for name in ("model.safetensors", "config.json"))


def test_the_page_of_a_login_does_not_stay_in_the_cache(server):
    content = TIMM.read_bytes()
    for page in (b"<!DOCTYPE html><p>Log in", content[: len(content) // 2]):
        server.files[WEIGHTS] = page
        with pytest.raises(UserError, match="run the same command to download it again"):
            load("hf-hub:me/it")
    server.files[WEIGHTS] = content
    assert load("hf-hub:me/it").label_names[0] == "class 0"


def test_what_is_in_the_cache_needs_no_network(server):
    server.files[WEIGHTS] = TIMM.read_bytes()  # and no config.json
    before = load("hf-hub:me/it").params
    server.shutdown()
    server.server_close()
    jax.tree.map(np.testing.assert_array_equal, load("hf-hub:me/it").params, before)
    with pytest.raises(UserError, match="cannot download hf-hub:me/other"):
        load("hf-hub:me/other")


def test_a_config_that_breaks_off_is_not_taken_for_none(server):
    server.files[WEIGHTS] = TIMM.read_bytes()
    load("hf-hub:me/it")
    server.files[CONFIG], server.cut = b'{"architecture": "mixer_b16_224"}', 5
    with pytest.raises(UserError, match="it broke off|cannot download"):
        load("hf-hub:me/it")


@pytest.mark.parametrize("content", [b"\x89HDF\r\n", b"\x1f\x8bgzip"])
def test_a_sound_file_of_another_kind_stays_in_the_cache(content, server):
    server.files[WEIGHTS] = content
    for _ in range(2):
        with pytest.raises(UserError, match="cannot read weights"):
            load("hf-hub:me/it")
    assert len([path for path, _ in server.requests if path == WEIGHTS]) == 1


def test_the_address_of_a_file_on_the_hub_has_the_config_beside_it(server):
    config = {"architecture": "mixer_b16_224", "pretrained_cfg": {"mean": [0.1] * 3, "input_size": [3, 32, 32]}}
    server.files |= {WEIGHTS: TIMM.read_bytes(), CONFIG: json.dumps(config).encode()}
    server.files[f"{WEIGHTS}?download=true"] = TIMM.read_bytes()
    for source in ("hf-hub:me/it", f"{server.address}{WEIGHTS}", f"{server.address}{WEIGHTS}?download=true"):
        assert load(source).preprocessing.mean == (0.1,) * 3


def test_a_token_is_sent_to_the_hub_alone(server, monkeypatch):
    sent, get = [], Handler.do_GET
    monkeypatch.setattr(Handler, "do_GET", lambda self: sent.append(self.headers.get("Authorization")) or get(self))
    monkeypatch.setenv("HF_TOKEN", "secret")
    server.files |= {WEIGHTS: TIMM.read_bytes(), "/w.npz": PAPER.read_bytes()}
    load("hf-hub:me/it")
    assert set(sent) == {"Bearer secret"}
    sent.clear()
    downloaded(f"{server.address}/w.npz", LARGEST)
    assert sent == [None]


@pytest.mark.parametrize("url", ["https://[x/model.npz", "https://a..b/m.npz", f"https://{'a' * 70}.org/m.npz"])
def test_an_address_that_is_none_gets_one_line(url, server):
    with pytest.raises(UserError, match=r"is not a URL|cannot download"):
        downloaded(url, LARGEST)


def test_what_will_be_too_large_is_not_downloaded(server):
    server.files["/w.npz"] = bytes(5 * 2**20)
    with pytest.raises(UserError, match="larger than 1,000 bytes"):
        downloaded(f"{server.address}/w.npz", 1000)
    assert [path.stat().st_size for path in module.cache_folder("weights").rglob("*.partial")] in ([], [0])


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        UserError, match=r"no published Mixer of that name \(did you mean 'B/16 imagenet1k'\?\); valid"
    ) as e:
        load("B/16 imagenet")
    assert "\n" not in str(e.value)


def test_what_is_published_where():
    """The paper's models are in one bucket; timm's on the Hub and, under earlier names, on GitHub with a checksum."""
    assert len({x.source for x in PUBLISHED.values()}) == len(PUBLISHED) == 23
    assert PUBLISHED["S/16 gsam"].source == "gs://mixer_models/gsam/Mixer-S_16.npz"
    for name, known in PUBLISHED.items():
        assert known.source.startswith(("gs://mixer_models/", f"hf-hub:{name}", GITHUB))
        assert known.source.startswith(GITHUB) == (len(known.sha256) == 8)


@pytest.mark.torch
def test_what_is_published_by_timm_is_as_timm_says():
    timm = pytest.importorskip("timm")
    for name, known in PUBLISHED.items():
        if name.startswith("timm/"):
            theirs = timm.models.get_pretrained_cfg(name.removeprefix("timm/"))
            assert known.resize == theirs.interpolation
            assert (theirs.mean, theirs.std) == ((known.mean,) * 3, (known.std,) * 3)
            assert (theirs.crop_pct, theirs.input_size) == (0.875, (3, 224, 224))
            [old] = (x for x in PUBLISHED.values() if x.source == theirs.url)
            assert (old.mean, old.std, old.resize) == (known.mean, known.std, known.resize)
            assert old.sha256 == theirs.url[-12:-4]
