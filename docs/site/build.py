"""Build the site: the pages of docs/, the results of experiments/, the API, and a gallery.

``python docs/site/build.py FOLDER`` writes it there and executes the tutorials. With ``--short`` it
executes none. Warnings are errors, and no page needs the network. It takes the group ``docs`` of
pyproject.toml.
"""

import importlib
import inspect
import os
import sys
import tempfile
from pathlib import Path

import gallery
from pages import Pages
from sphinx.cmd.build import build_main

import pyro_vae as pv

SITE = Path(__file__).parent
ROOT = SITE.parents[1]

# What stands under each heading of the menu; pages of docs/ that are not named here come under the
# last one of them, those of experiments/ under "Results".
MENU = {
    "Tutorials": [
        "tutorials/first-vae", "tutorials/your-own-parts", "tutorials/believing-a-likelihood",
        "tutorials/inside-the-posterior",
    ],
    "How to": [
        "swap", "data", "missing-data", "likelihoods", "training", "resume", "speed",
        "larger", "many-processes", "gpu", "sharing",
    ],
    "Understand": [
        "numbers", "scores", "measuring", "check", "components", "gallery", "data-kinds",
    ],
    "Results": ["experiments/README", "experiments/results/README"],
    "Beyond one VAE": [
        "pyro-programs", "global-latents", "multimodal", "sequences", "hierarchies",
    ],
    "More": [],
    "Reference": ["api/index", "CHANGELOG", "CONTRIBUTING", "SECURITY"],
}  # fmt: skip
PACKAGES = [
    "training", "evaluation", "diagnostics", "inspection", "plotting", "priors", "likelihoods",
    "posteriors", "networks", "objectives", "datasets", "checks", "sharing",
    "testing",
]  # fmt: skip

START = """pyro_vae
========

{about}

.. image:: {picture}
   :alt: Digits drawn from a conditional VAE.
   :width: 26em

Digits that a conditional VAE draws: each row was asked for one label
(:doc:`more of them <experiments/systems/README>`).

.. code-block:: python

{example}

.. code-block:: text

   pip install pyro-vae    # as a library
   pyro-vae train          # a VAE on digits, scored, with figures, in a minute

New here? Start with :doc:`your first VAE <tutorials/first-vae>`, then make
:doc:`a part of your own <tutorials/your-own-parts>`. Have data? :doc:`data` and :doc:`likelihoods`
tell how to bring them in. Have a score? :doc:`numbers` tells what it means, and
:doc:`tutorials/believing-a-likelihood` whether to believe it.

{menu}
"""


def main(out: Path, short: bool) -> int:
    """Assemble the pages in a folder of its own, and build them; 0 if all is well."""
    # Kernels without ipywidgets: where a tutorial imports Pyro first, tqdm would say so.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        pages = Pages(ROOT, source)
        pages.write()
        write_start(source, pages.names())
        write_api(source / "api")
        gallery.write(source)
        options = ["-W", "--keep-going", "-q", "-b", "html", "-c", str(SITE)]
        options += ["-D", f"nb_execution_mode={'off' if short else 'force'}"]
        return build_main([*options, "-d", str(source / ".doctrees"), str(source), str(out)])


def write_start(source: Path, found: list[str]) -> None:
    """The start page: what the README says first, and the menu."""
    named = {name for names in MENU.values() for name in names}
    rest = [name for name in found if name not in named]
    menu = {title: list(names) for title, names in MENU.items()}
    menu["Results"] += [name for name in rest if name.startswith("experiments/")]
    menu["More"] += [name for name in rest if not name.startswith("experiments/")]
    readme = (ROOT / "README.md").read_text()
    about = readme.split("\n\n")[1].replace("[Pyro](https://pyro.ai)", "Pyro").replace("\n", " ")
    example = readme.split("```python\n")[1].split("```")[0]
    trees = (
        f".. toctree::\n   :caption: {title}\n   :maxdepth: 1\n   :hidden:\n\n"
        + "".join(f"   {name}\n" for name in names)
        for title, names in menu.items()
        if names
    )
    page = START.format(
        about=about,
        picture="experiments/systems/figures/labels.png",
        example="".join(f"   {line}".rstrip() + "\n" for line in example.splitlines()),
        menu="\n".join(trees),
    )
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
    sys.exit(main(Path(sys.argv[1]), short="--short" in sys.argv[2:]))
