"""The Python examples of docs/ run, each document's in order and in one namespace."""

import re
from pathlib import Path

import pytest

DOCUMENTS = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))


@pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_the_examples_of_a_document_run(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", document.read_text(), re.S):
        exec(code, names)
