"""What the documents show must run."""

import re
from pathlib import Path

import pyro
import pytest
import tables
import torch

import pyro_vae as pv
from pyro_vae.testing import check_prior

ROOT = Path(__file__).parents[2]
IMPORTS = """import torch
from torch import nn
import pyro.distributions as dist
from pyro_vae.networks import as_shape
"""


def blocks(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.S)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 110


def test_the_component_tables_are_those_of_the_code():
    text = (ROOT / "docs" / "components.md").read_text()
    assert text == tables.with_tables(text), "run python tests/tables.py"
    for module in tables.FAMILIES.values():
        assert all(f"| `{name}` |" in text for name in module.__all__)


@pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")
def test_the_first_example_runs_on_the_embedded_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = (
        blocks("README.md")[0]
        .replace('"mnist"', '"digits"')
        .replace("28", "8")
        .replace("epochs=20", "epochs=1, progress=False")
    )
    names: dict = {}
    exec(code.replace("1000", "20"), names)
    assert names["images"].shape == (64, 1, 8, 8) and "nats" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")
def test_the_pyro_model_trains_and_is_scored():
    names = {"torch": torch, "pyro": pyro, "dist": pyro.distributions, "pv": pv}
    names |= {"encoder": torch.nn.Linear(3, 2), "decoder": torch.nn.Linear(2, 3)}
    exec(blocks("README.md")[1], names)
    program, x = names["program"], torch.randn(20, 3)
    before = names["decoder"].weight.detach().clone()
    pv.fit(program, x, epochs=2, progress=False)
    assert not torch.equal(names["decoder"].weight, before)
    assert pv.log_likelihood(program, x, 50).mean > pv.elbo(program, x, 50).mean


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_the_prior_to_imitate_keeps_the_contract(document, tmp_path, monkeypatch):
    code = blocks(document)[-1]
    (tmp_path / f"shown_in_{document[:-3].lower()}.py").write_text(IMPORTS + code)
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__(f"shown_in_{document[:-3].lower()}")
    check_prior(getattr(module, re.search(r"class (\w+)", code)[1])((1,)))
    assert isinstance(module.torch, type(torch))


def test_contributing_names_files_that_exist():
    named = set(re.findall(r"`([\w./]+/[\w.]*)`", (ROOT / "CONTRIBUTING.md").read_text()))
    assert "evaluation/pareto.py" in named
    for name in named - {"../shared/data"}:
        assert (ROOT / name).exists() or (ROOT / "pyro_vae" / name).exists(), name


def anchors(text):
    """The names by which headings are linked to."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.M)
    }


@pytest.mark.parametrize(
    "document",
    [
        path
        for places in ("*", "docs/**/*", "experiments/**/*")
        for path in sorted(ROOT.glob(f"{places}.md"))
    ],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if not target.startswith(("http", "mailto")):
            path, _, anchor = target.partition("#")
            file = document.parent / path if path else document
            assert file.exists(), target
            assert not anchor or anchor in anchors(file.read_text()), target
