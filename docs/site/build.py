"""Build the site: the pages of docs/, the API from the docstrings, and a gallery of densities.

``python docs/site/build.py FOLDER`` writes it there. Warnings are errors, and no page needs the
network. It takes the group ``docs`` of pyproject.toml.
"""

import importlib
import inspect
import re
import shutil
import sys
import tempfile
from pathlib import Path

import gallery
from sphinx.cmd.build import build_main

import pyro_vae as pv

SITE = Path(__file__).parent
DOCS, ROOT = SITE.parent, SITE.parents[1]

GUIDES = {
    "Train": ["training", "scores", "data", "data-kinds", "likelihoods", "components"],
    "Beyond one VAE": ["pyro-programs", "global-latents", "multimodal", "sequences"],
    "Run folders": ["check", "threat-model"],
}
PACKAGES = [
    "training", "evaluation", "diagnostics", "inspection", "plotting", "priors", "likelihoods",
    "posteriors", "networks", "objectives", "datasets", "checks", "testing",
]  # fmt: skip

START = """pyro_vae
========

{about}

.. code-block:: python

{example}

.. code-block:: text

   pip install pyro-vae    # as a library
   pyro-vae train          # a VAE on digits, scored, with figures, in a minute

.. image:: samples.png
   :alt: Digits drawn from a VAE that one command trains in a minute.
   :width: 24em

{guides}

.. toctree::
   :caption: Reference

   gallery
   api/index
   changelog
"""


def main(out: Path) -> int:
    """Assemble the pages in a folder of its own, and build them; 0 if all is well."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        write_pages(source)
        write_api(source / "api")
        gallery.write(source)
        options = ["-W", "--keep-going", "-q", "-b", "html", "-c", str(SITE)]
        return build_main([*options, "-d", str(source / ".doctrees"), str(source), str(out)])


def write_pages(source: Path) -> None:
    """Copy the guides and write the start page."""
    named = {name for names in GUIDES.values() for name in names}
    found = {path.stem for path in DOCS.glob("*.md")}
    guides = {**GUIDES, "More": sorted(found - named)}
    for path in DOCS.glob("*.md"):
        # What lies outside of docs/ has no page: its link becomes its path.
        text = re.sub(r"\[([^]]*)\]\s*\(\.\./([^)]*)\)", r"\1 (`\2`)", path.read_text())
        (source / path.name).write_text(text)
    shutil.copy(ROOT / "CHANGELOG.md", source / "changelog.md")
    readme = (ROOT / "README.md").read_text()
    about = readme.split("\n\n")[1].replace("[Pyro](https://pyro.ai)", "Pyro").replace("\n", " ")
    example = readme.split("```python\n")[1].split("```")[0]
    trees = (
        f".. toctree::\n   :caption: {title}\n   :maxdepth: 1\n\n"
        + "".join(f"   {name}\n" for name in names if name in found)
        for title, names in guides.items()
        if names
    )
    indented = "".join(f"   {line}".rstrip() + "\n" for line in example.splitlines())
    page = START.format(about=about, example=indented, guides="\n".join(trees))
    (source / "index.rst").write_text(page)


def write_api(source: Path) -> None:
    """A page for each package, and one for what `pyro_vae` itself shows."""
    source.mkdir()
    own = [name for name in pv.__all__ if not inspect.ismodule(vars(pv).get(name) or _of(name))]
    pages = {"pyro_vae": ("The names of ``pyro_vae`` itself.", [f"pyro_vae.{n}" for n in own])}
    for package in PACKAGES:
        module = importlib.import_module(f"pyro_vae.{package}")
        about = inspect.getdoc(module) or ""
        pages[f"pyro_vae.{package}"] = about, [f"{module.__name__}.{n}" for n in module.__all__]
    for title, (about, names) in pages.items():
        # What `pyro_vae` shows has its home, and its place in the index, in a package.
        body = "\n".join(_entry(name, is_home=title != "pyro_vae") for name in names)
        heading = f"{title}\n{'=' * len(title)}\n"
        (source / f"{title}.rst").write_text(f"{heading}\n{about}\n\n{body}\n")
    listed = "".join(f"   {title}\n" for title in pages)
    (source / "index.rst").write_text(f"API\n===\n\n.. toctree::\n\n{listed}")


def _of(name: str) -> object:
    return getattr(pv, name)


def _entry(path: str, is_home: bool) -> str:
    """The directive that documents a name."""
    package, _, name = path.rpartition(".")
    found = vars(importlib.import_module(package)).get(name) or _of(name)
    option = "" if is_home else "   :no-index:\n"
    if inspect.isclass(found):
        return f".. autoclass:: {path}\n{option}   :members:\n"
    return f".. autofunction:: {path}\n{option}" if callable(found) else ""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
