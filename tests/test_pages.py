"""Pages as a browser shows them: no errors, nothing wider than the screen, nothing over something else."""

import shutil

import pytest
from PIL import Image

from mixer_jax import demo, inference, studies
from mixer_jax.errors import UserError
from runs import train_digits

WIDTHS = (390, 1440)
# Of all that is seen the pairs that lie over each other and neither in the other.
OVERLAPS = """() => {
  const seen = [...document.querySelectorAll("h1, h2, p, li, td, th, img, figure, figcaption, summary, svg")]
    .filter(e => e.checkVisibility()).map(e => [e, e.getBoundingClientRect()]);
  const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  return seen.flatMap(([a, r], i) => seen.slice(i + 1)
    .filter(([b, q]) => !a.contains(b) && !b.contains(a) && over(r, q)).map(([b]) => a.outerHTML.slice(0, 80)));
}"""


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, with_pictures):
    return train_digits(tmp_path_factory.mktemp("pages") / "run", "--config.epochs=4")


def opened(chromium, url, width):
    """A page, and a list that its errors will be in."""
    page, errors = chromium.new_page(viewport={"width": width, "height": 900}), []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    return page, errors


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_reports_are_in_order_on_phone_and_desktop(chromium, trained, tmp_path, width):
    studies.compare([trained], tmp_path)
    for file in (trained / "report.html", tmp_path / "comparison.html"):
        page, errors = opened(chromium, file.as_uri(), width)
        page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(OVERLAPS) == []
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0 && image.alt)")
        assert not errors


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Gradio's own, of pandas
def test_the_demo_tells_what_an_image_and_a_drawing_show(chromium, trained, tmp_path):
    pytest.importorskip("gradio")
    classifier = inference.load(trained)
    images, _ = inference.open_split(classifier, inference.dataset_of(classifier), "test").read(range(1))
    Image.fromarray(images[0, ..., 0]).save(tmp_path / "digit.png")
    expected = classifier.label_names[int(classifier.logits(images, 1).argmax())]
    served = demo.build(trained)
    _, url, _ = served.launch(prevent_thread_lock=True, quiet=True)
    try:
        for width in WIDTHS:
            page, errors = opened(chromium, url, width)
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
def test_a_damaged_upload_gets_one_line_on_the_page_and_none_in_the_terminal(chromium, trained, tmp_path, capfd):
    pytest.importorskip("gradio")
    (tmp_path / "digit.png").write_bytes(b"not an image")
    served = demo.build(trained)
    _, url, _ = served.launch(prevent_thread_lock=True, quiet=True)
    try:
        page, _ = opened(chromium, url, 1440)
        page.locator("input[type=file]").first.set_input_files(tmp_path / "digit.png")
        told = page.get_by_test_id("toast-body").first
        told.wait_for(timeout=60_000)
        assert "cannot read image digit.png: cannot identify image file" in told.inner_text()
        assert "Traceback" not in capfd.readouterr().err
    finally:
        served.close()


def test_a_demo_without_gradio_or_a_run_says_so(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="--workdir"):
        demo.main(["demo"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install gradio"):
        demo.main(["demo", "--workdir", str(tmp_path)])
