"""What is released: one version everywhere, and the same dependencies in every recipe."""

import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

import pyro_vae

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def conda() -> dict:
    """The conda recipe, with its version filled in."""
    lines = (ROOT / "conda" / "meta.yaml").read_text().splitlines()
    (stated,) = (line for line in lines if line.startswith("{% set version"))
    version = stated.split('"')[1]
    text = "\n".join(line for line in lines if not line.startswith("{%"))
    return yaml.safe_load(text.replace("{{ version }}", version).replace("{{ PYTHON }}", "python"))


def test_one_version_everywhere():
    versions = {
        PROJECT["version"],
        pyro_vae.__version__,
        yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"],
        conda()["package"]["version"],
        (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1].split()[0],
    }
    assert len(versions) == 1


def test_conda_installs_what_pip_does():
    ours = {}
    for line in PROJECT["dependencies"]:
        needed = Requirement(line)
        ours[{"torch": "pytorch"}.get(needed.name, needed.name)] = str(needed.specifier)
    ours["python"] = PROJECT["requires-python"]
    theirs = dict(line.split() for line in conda()["requirements"]["run"])
    assert theirs == ours


def test_trackers_and_tools_of_one_command_are_extras():
    needed = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert not needed & {"tensorboard", "mlflow", "wandb", "polars", "anndata", "datasets"}


def test_the_citation_and_the_issue_forms_are_whole():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0" and cited["license"] == PROJECT["license"]
    assert {"message", "title", "authors", "date-released"} <= cited.keys()
    for name in ("bug", "feature"):
        form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
        assert {"name", "description", "body"} <= form.keys()
        assert all(each["attributes"]["label"] for each in form["body"])
