"""Pages as a browser shows them: no errors, nothing wider than the screen, nothing over something else."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from browser import WIDTHS, opened
from mixer_jax import inference, report, studies
from mixer_jax.reporting.evidence import Evidence
from mixer_jax.reporting.report import write_report
from mixer_jax.run_directory import RunDirectory
from runs import train_digits
from support import ROOT

# Of all that is seen, the pairs that overlap though neither contains the other; a table may scroll under its heading.
OVERLAPS = """() => {
  const kinds = "h1, h2, h3, p, li, td, dt, dd, img, figure, figcaption, canvas, form, output";
  const seen = [...document.querySelectorAll(kinds)]
    .filter(e => e.checkVisibility() && !e.closest(".uplot")).map(e => [e, e.getBoundingClientRect()]);
  const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  const scrolled = (a, b) => a.closest(".tall") !== b.closest(".tall");
  return seen.flatMap(([a, r], i) => seen.slice(i + 1).filter(([b, q]) =>
    !a.contains(b) && !b.contains(a) && !scrolled(a, b) && over(r, q)).map(([b]) => a.outerHTML.slice(0, 80)));
}"""
# The names and values of a chart's series.
LEGEND = """() => [...document.querySelector(".u-legend").querySelectorAll(".u-series")].map(
  e => e.querySelector(".u-label").textContent + ": " + e.querySelector(".u-value").textContent).join(" ")"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory, with_pictures):
    return train_digits(tmp_path_factory.mktemp("pages") / "run", "--config.epochs=4")


@pytest.fixture(scope="module")
def pages(trained, tmp_path_factory):
    """A report, one of a run that is not finished, one of 300 classes, and a comparison with published numbers."""
    folder = tmp_path_factory.mktemp("others")
    half = shutil.copytree(trained, folder / "half")
    for name in ("results.json", "predictions.npz", "report.html"):
        (half / name).unlink()
    report.main(["report", str(half)])
    many = shutil.copytree(trained, folder / "many")
    with_classes(RunDirectory(many), 300)
    write_report(RunDirectory(many), inference.load(trained), RunDirectory(many).read_results())
    published = ROOT / "configs" / "results" / "published_cifar10.json"
    study = ROOT / "configs" / "results" / "mnist_study" / "comparison.json"
    studies.compare([trained, half, published, study], folder / "comparison")
    return [
        trained / "report.html",
        half / "report.html",
        many / "report.html",
        folder / "comparison" / "comparison.html",
    ]


def with_classes(run, n):
    """Make the report of a run one of `n` classes, with names in three scripts and random predictions."""
    names = [f"{'αжア'[i % 3]}{i}" * (1 + i % 5) for i in range(n)]
    config = json.loads(run.config_file.read_text())
    config["dataset"]["label_names"] = names
    run.config_file.write_text(json.dumps(config))
    rng, evidence = np.random.default_rng(0), Evidence.load(run.predictions_file)
    labels = rng.integers(0, n, 360)
    logits = rng.normal(size=(360, n)).astype(np.float32)
    logits[np.arange(360), labels] += 3 * rng.random(360)
    dataclasses.replace(evidence, logits=logits, labels=labels).save(run.predictions_file)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_are_in_order_on_every_screen(chromium, pages, width, scheme):
    for file in pages:
        page, errors = opened(chromium, file.as_uri(), width, scheme)
        page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(OVERLAPS) == []
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0 && image.alt)")
        assert page.evaluate(
            "[...document.querySelectorAll('.plot')].every(e => e.querySelector('canvas').width > 100)"
        )
        assert not errors
        page.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_accessibility_checker_finds_nothing(chromium, pages, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    for file in pages:
        page, _ = opened(chromium, file.as_uri(), 1440, scheme)
        found = axe.run(page)
        assert found.violations_count == 0, found.generate_report()
        page.close()


@pytest.mark.slow
def test_charts_tell_their_values_and_can_be_zoomed(chromium, trained, pages):
    page, errors = opened(chromium, pages[0].as_uri(), 1440)
    history, steps = RunDirectory(trained).read_metrics(), RunDirectory(trained).read_steps()
    shown = lambda: page.evaluate(LEGEND)  # noqa: E731
    plot = page.locator(".plot").first
    plot.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert f"epoch: 2 train: {history[1].train_loss:.4g} validation: {history[1].val_loss:.4g}" in shown()
    box = plot.locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 50)
    assert f"epoch: {len(history)} train: {history[-1].train_loss:.4g}" in shown()
    page.get_by_label("by step").first.check()
    plot.focus()
    page.keyboard.press("Home")
    assert f"step: {steps[0].step} train: {steps[0].loss:.4g}" in shown()
    page.get_by_label("smoothing").first.fill("0.9")
    plot.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    losses = [one.loss for one in steps[:2]]
    assert f"train (smoothed): {(0.9 * losses[0] + losses[1]) / 1.9:.4g}" in shown()
    page.get_by_label("logarithmic").first.check()
    before = page.evaluate("drawn[0].plot.scales.x.max - drawn[0].plot.scales.x.min")
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 50, steps=5)
    page.mouse.up()
    zoomed = page.evaluate("drawn[0].plot.scales.x.max - drawn[0].plot.scales.x.min")
    assert zoomed == pytest.approx(0.3 * before, rel=0.1)
    page.get_by_label("logarithmic").first.uncheck()  # any control keeps the zoom
    assert page.evaluate("drawn[0].plot.scales.x.max - drawn[0].plot.scales.x.min") == pytest.approx(zoomed)
    plot.focus()
    page.keyboard.press("Escape")
    assert page.evaluate("drawn[0].plot.scales.x.max - drawn[0].plot.scales.x.min") == before
    assert not errors


@pytest.mark.slow
def test_charts_with_the_same_axis_move_together(chromium, trained, pages):
    page, errors = opened(chromium, pages[0].as_uri(), 1440)
    history = RunDirectory(trained).read_metrics()
    legend = page.locator(".u-legend").nth(1)
    last = f"validation{history[-1].val_accuracy:.4g}"
    assert last in legend.inner_text().replace("\n", "").replace(" ", "")  # without a pointer, the last values
    page.locator(".plot").first.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert f"validation{history[1].val_accuracy:.4g}" in legend.inner_text().replace("\n", "").replace(" ", "")
    page.keyboard.press("+")
    ranges = "drawn.slice(0, 5).map(one => [one.plot.scales.x.min, one.plot.scales.x.max])"
    assert page.evaluate(ranges) == [[1.5, 3.0]] * 5  # half of epochs 1 to 4, around epoch 2
    page.keyboard.press("-")
    assert page.evaluate(ranges) == [[1, 4]] * 5
    assert not errors


@pytest.mark.slow
def test_a_finger_zooms_and_sorts(chromium, pages):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(pages[0].as_uri())
    over = page.locator(".u-over").first
    over.scroll_into_view_if_needed()
    box, scrolled = over.bounding_box(), page.evaluate("scrollY")
    fingers = context.new_cdp_session(page)

    def touch(kind, *at):
        points = [{"x": box["x"] + x * box["width"], "y": box["y"] + 0.5 * box["height"]} for x in at]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.2)
    for x in range(21, 71):
        touch("touchMove", x / 100)
    touch("touchEnd")
    low, high = page.evaluate("[drawn[0].plot.scales.x.min, drawn[0].plot.scales.x.max]")
    assert (low, high) == pytest.approx((1 + 0.2 * 3, 1 + 0.7 * 3), abs=0.15)
    assert page.evaluate("scrollY") == scrolled
    classes = page.locator("table.cards")
    classes.get_by_role("button", name="images").tap()
    images = [int(text) for text in classes.locator("td:nth-child(2)").all_inner_texts()]
    assert images == sorted(images)
    context.close()


@pytest.mark.slow
def test_curves_are_chosen_by_name_and_large_matrices_enlarged(chromium, pages):
    page, errors = opened(chromium, pages[3].as_uri(), 1440)
    page.get_by_label("only").first.fill("cnn")
    names = page.locator(".charts").filter(has=page.get_by_label("only")).first.locator(".u-series .u-label")
    shown = [name.inner_text() for name in names.all() if name.is_visible()]
    assert shown
    assert all("CNN" in name for name in shown if name != "epoch")
    page, other = opened(chromium, pages[2].as_uri(), 1440)
    canvas, output = page.locator(".confusion canvas"), page.locator(".confusion output")
    canvas.focus()
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    named = output.inner_text().split(":")[0]
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.99 * box["width"], box["y"] + 0.99 * box["height"])
    assert output.inner_text().split(":")[0] != named
    data = json.loads(page.locator(".confusion script").text_content())
    row, column = output.inner_text().split(":")[0].split(", predicted as ")
    assert (data["names"].index(row), data["names"].index(column)) == (24, 24)  # of 25 that are shown
    page.mouse.click(box["x"] + 0.99 * box["width"], box["y"] + 0.99 * box["height"])
    page.mouse.move(box["x"] + 0.995 * box["width"], box["y"] + 0.995 * box["height"])
    row, column = output.inner_text().split(":")[0].split(", predicted as ")
    assert (data["names"].index(row), data["names"].index(column)) == (298, 298)  # of all 300
    assert not errors
    assert not other


@pytest.mark.slow
def test_tables_sort_and_the_confusion_matrix_names_its_cells(chromium, trained, pages):
    page, errors = opened(chromium, pages[0].as_uri(), 1440)
    evidence = Evidence.load(RunDirectory(trained).predictions_file)
    counts = confusion_matrix(evidence.labels, evidence.logits.argmax(1))
    classes = page.locator("table.cards")
    images = lambda: [int(text) for text in classes.locator("td:nth-child(2)").all_inner_texts()]  # noqa: E731
    button = classes.get_by_role("button", name="images")
    button.click()
    assert images() == sorted(counts.sum(1))
    button.press("Enter")
    assert images() == sorted(counts.sum(1), reverse=True)
    canvas, output = page.locator(".confusion canvas"), page.locator(".confusion output")
    canvas.focus()
    page.keyboard.press("ArrowDown")
    true, predicted = map(int, re.match(r"(\d), predicted as (\d):", output.inner_text()).groups())
    total = counts[true].sum()
    assert f": {counts[true, predicted]} of {total} images" in output.inner_text()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.95 * box["width"], box["y"] + 0.05 * box["height"])
    true, other = map(int, re.match(r"(\d), predicted as (\d):", output.inner_text()).groups())
    assert true == predicted
    assert f": {counts[true, other]} of" in output.inner_text()
    page.locator(".gallery button").first.click()
    dialog = page.locator("dialog[open]")
    assert dialog.locator("img").count() == 2
    assert "nearest training image" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert not errors


@pytest.mark.slow
def test_times_and_intervals_sort_by_what_they_are(chromium, pages):
    page, errors = opened(chromium, pages[-1].as_uri(), 1440)
    table = page.locator("table.sortable").last
    for column in ("training time, fastest run", "difference"):
        table.get_by_role("button", name=column).click()
        place = table.locator("th").all_inner_texts().index(column) + 1
        cells = table.locator(f"td:nth-child({place})")
        values = cells.evaluate_all("cells => cells.map(cell => cell.dataset.value)")
        given = [float(value) for value in values if value is not None]
        assert given == sorted(given)
        assert len(given) > 5
        assert values[len(given) :] == [None] * (len(values) - len(given))
    assert not errors


@pytest.mark.slow
def test_a_printed_page_is_light_and_whole(chromium, pages):
    page, _ = opened(chromium, pages[2].as_uri(), 1440, "dark")
    assert page.evaluate("document.querySelector('.tall').scrollHeight > document.querySelector('.tall').clientHeight")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("document.querySelector('.tall').scrollHeight == document.querySelector('.tall').clientHeight")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"


@pytest.mark.slow
def test_a_report_opens_at_once(chromium, pages):
    page, _ = opened(chromium, pages[0].as_uri(), 1440)
    assert page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") < 1000
    assert pages[0].stat().st_size < 2**21
