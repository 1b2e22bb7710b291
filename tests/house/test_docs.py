"""The Python examples of docs/ run, each document's in order and in one namespace.

Those of docs/tutorials run in a short form: an epoch in place of many, few draws, few data.
"""

import ast
import re
import sys
import types
from pathlib import Path

import matplotlib
import pytest

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENTS = sorted(DOCS.glob("*.md"))
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))

# What makes a tutorial short: a pattern, and what stands in its place.
SHORTER = {
    r"epochs=\d+": "epochs=1",
    r"num_samples=\d+": "num_samples=20",
    r"num_temperatures=\d+": "num_temperatures=3",
    r"num_leapfrog=\d+": "num_leapfrog=1",
    r"num_data=\d+": "num_data=4",
    r"steps=\d+": "steps=2",
    r"warmup=\d+": "warmup=10",
    r"test\[:\d+\]": "test[:4]",
}


@pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_the_examples_of_a_document_run(document, tmp_path, monkeypatch, quick_chains):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", document.read_text(), re.S):
        exec(code, names)


@pytest.mark.filterwarnings("ignore")  # what few draws and short chains warn of
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_the_cells_of_a_tutorial_run(tutorial, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    notebook = types.ModuleType("__main__")  # where the classes of a notebook are
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    cells = re.findall(r"```\{code-cell\} ipython3\n(.*?)```", tutorial.read_text(), re.S)
    assert len(cells) > 4
    for code in cells:
        for pattern, short in SHORTER.items():
            code = re.sub(pattern, short, code)
        exec(compile(ast.parse(code), str(tutorial), "exec"), vars(notebook))
