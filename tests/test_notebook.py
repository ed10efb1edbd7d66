"""The notebook from top to bottom, on digits, as a bare runtime runs it."""

import os
import re
import sys
from pathlib import Path

import pytest

from support import ROOT


@pytest.mark.notebook
@pytest.mark.filterwarnings("ignore")  # Jupyter's own
def test_it_runs_on_digits(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(ROOT / "mixer_jax_colab.ipynb", as_version=4)
    [parameters] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    (tmp_path / "repositories").mkdir()
    (tmp_path / "repositories" / "mixer_jax").symlink_to(ROOT)
    (tmp_path / "content").mkdir()
    workdir = tmp_path / "My Drive" / "a run"
    parameters.source = (
        f"REPOSITORY, WORKDIR = {str(tmp_path / 'repositories' / 'mixer_jax')!r}, {str(workdir)!r}\n"
        "CONFIG = 'configs/digits.py'\n"
        "FLAGS, PUBLISHED = '--config.epochs=10', 'configs/results/published_cifar10.json'"
    )
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.delenv("XLA_FLAGS")
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": tmp_path / "content"}}).execute()

    texts = [
        "".join(
            output.get("text", "") + output.get("data", {}).get("text/markdown", "")
            for output in cell.get("outputs", [])
        )
        for cell in notebook.cells
    ]
    of = dict(zip((cell.source for cell in notebook.cells), texts, strict=True))
    told = "\n".join(texts)
    assert "% of 360 test images" in told
    assert "90.83" in told  # what others published
    at_once, predicted = [text for source, text in of.items() if "mixer_jax.predict" in source]
    assert re.search(r"a digit\.png\s+0\s+\d\d\.\d\d%", at_once)
    assert len(re.findall(r"\d\.\d\d%", predicted)) == 5
    [served] = [text for source, text in of.items() if "demo.build" in source]
    assert "127.0.0.1" in served
    assert "model.stablehlo" in told
    assert "error" not in told.lower()
    assert (workdir / "report.html").exists()
