"""Sphinx settings of the site, which `build.py` beside this file builds."""

from functools import cache

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

import pyro_vae
from pyro_vae.report import markup

project, author, version = "pyro_vae", "The pyro_vae maintainers", pyro_vae.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]
nb_execution_raise_on_error, nb_execution_timeout = True, 300
nb_execution_in_temp = True
nb_merge_streams = True
html_theme, html_title = "furo", "pyro_vae"
html_static_path, html_css_files = ["_static"], ["site.css"]
html_favicon = "_static/icon.svg"
html_theme_options = {"source_repository": "", "source_branch": ""}
html_copy_source = html_show_sourcelink = html_show_copyright = False
html_math_renderer = "curves"
default_role = "py:obj"
autodoc_typehints = "none"  # the signature has them
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # torch's words about `forward` of any module
napoleon_custom_sections = [("Source", "notes_style"), ("Warns", "params_style")]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
toc_object_entries = False

WARN = logging.getLogger(__name__).warning


def block(self, node: nodes.math_block) -> None:
    """A formula on lines of its own, drawn as curves: the page needs no script and no network."""
    for part in node.astext().strip().split("\n\n"):
        self.body.append(f'<p class="formula">{_drawn(part, node)}</p>')
    raise nodes.SkipNode


def inline(self, node: nodes.math) -> None:
    """A formula within a line."""
    self.body.append(f'<span class="inline-formula">{_drawn(node.astext(), node)}</span>')
    raise nodes.SkipNode


def _drawn(latex: str, node: nodes.Node) -> str:
    picture = _picture(" ".join(latex.split()))
    if not picture.startswith("<img"):
        WARN("a formula that cannot be drawn: %s", latex, location=node)
    return picture


@cache
def _picture(latex: str) -> str:
    return markup.formula(latex)


def say_times(app: Sphinx, error: Exception | None) -> None:
    """Say how long each tutorial ran."""
    for page, about in sorted(app.env.nb_metadata.items()):
        if "exec_data" in about:
            print(f"{page}: {about['exec_data']['runtime']:.0f} s")


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("curves", (inline, None), (block, None))
    app.connect("build-finished", say_times)
