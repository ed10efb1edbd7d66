"""The demo's page in a browser, and its errors."""

import io
from types import SimpleNamespace

import pytest
from PIL import Image

from browser import WIDTHS, opened
from made_models import made_classifier
from mixer_jax import demo, inference
from mixer_jax.errors import UserError
from mixer_jax.reporting.evidence import Evidence
from mixer_jax.run_directory import RunDirectory
from runs import train_digits


@pytest.fixture(scope="module")
def trained(tmp_path_factory, with_pictures):
    return train_digits(tmp_path_factory.mktemp("demo") / "run", "--config.epochs=4")


@pytest.fixture(scope="module")
def gradio():
    return pytest.importorskip("gradio")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Gradio's own, of pandas
def test_the_demo_tells_what_an_image_and_a_drawing_show(chromium, gradio, trained, tmp_path):
    classifier = inference.load(trained)
    images, _ = inference.open_split(classifier, inference.dataset_of(classifier), "test").read(range(1))
    Image.fromarray(images[0, ..., 0]).save(tmp_path / "digit.png")
    expected = classifier.label_names[int(classifier.logits(images, 1).argmax())]
    served = demo.build(trained)
    example = Evidence.load(RunDirectory(trained).predictions_file).images[:1]
    expected_of_example = classifier.label_names[int(classifier.logits(example, 1).argmax())]
    _, url, _ = served.launch(prevent_thread_lock=True, quiet=True)
    try:
        for width in WIDTHS:
            page, errors = opened(chromium, url, width)
            page.locator(".gallery-item").first.click()
            heading = page.get_by_test_id("label-output-value")
            heading.wait_for(timeout=60_000)
            assert heading.inner_text() == expected_of_example
            page.get_by_label("Remove").or_(page.get_by_label("Clear")).first.click()
            heading.wait_for(state="detached", timeout=60_000)
            page.locator("input[type=file]").first.set_input_files(tmp_path / "digit.png")
            heading = page.get_by_test_id("label-output-value")
            heading.wait_for(timeout=60_000)
            assert heading.inner_text() == expected
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.get_by_role("tab", name="Draw").click()
            page.get_by_role("button", name="Brush").click()
            box = page.locator("canvas").first.bounding_box()
            before = page.locator("#maps img").get_attribute("src")
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.3)
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.7, steps=10)
            page.mouse.up()
            page.locator(f'#maps img:not([src="{before}"])').wait_for(timeout=60_000)
            assert page.get_by_test_id("toast-body").count() == 0
            assert not errors
    finally:
        served.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Gradio's own, of pandas
def test_a_damaged_upload_gets_one_line_on_the_page_and_none_in_the_terminal(
    chromium, gradio, trained, tmp_path, monkeypatch
):
    (tmp_path / "digit.png").write_bytes(b"not an image")
    served = demo.build(trained)
    _, url, _ = served.launch(prevent_thread_lock=True, quiet=True)
    # After the launch, which closes the stream of absl's log handler unless it is sys.stderr.
    monkeypatch.setattr("sys.stderr", terminal := io.StringIO())
    try:
        page, _ = opened(chromium, url, 1440)
        page.locator("input[type=file]").first.set_input_files(tmp_path / "digit.png")
        told = page.get_by_test_id("toast-body").first
        told.wait_for(timeout=60_000)
        assert "cannot read image digit.png: it is not an image in a supported format" in told.inner_text()
        assert "Traceback" not in terminal.getvalue()
    finally:
        served.close()


@pytest.mark.parametrize(
    ("flags", "model", "launched"),
    [
        ([], ("mnist", "best"), {"server_port": None, "share": False}),
        (
            ["--workdir=runs/x", "--checkpoint=7", "--port=80", "--share"],
            ("runs/x", "7"),
            {"server_port": 80, "share": True},
        ),
    ],
)
def test_the_command_serves_the_model_at_the_port(flags, model, launched, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(
        demo, "build", lambda *args: served.append(tuple(map(str, args))) or SimpleNamespace(launch=launch)
    )
    served, launch = [], lambda **settings: served.append(settings)
    assert demo.main(["demo", *flags]) == 0
    assert served == [model, launched]


def test_a_demo_without_a_run_says_so(gradio):
    with pytest.raises(UserError, match="there is no run directory or file nowhere"):
        demo.main(["demo", "--workdir=nowhere"])


def test_a_demo_of_a_model_without_a_head_says_so(gradio, tmp_path):
    made_classifier(label_names=()).save(tmp_path / "x.npz")
    with pytest.raises(UserError, match="has no head and so no classes"):
        demo.build(tmp_path / "x.npz")


def test_a_demo_without_gradio_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install gradio"):
        demo.main(["demo", "--workdir", str(tmp_path)])
