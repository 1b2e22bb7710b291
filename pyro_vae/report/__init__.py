"""Reports: figures and numbers of a fitted program, and the HTML page of a run.

What a program can be shown as, and in which words, is decided here; figures are drawn in
`pyro_vae.plotting`, and numbers are computed on the floors below.
"""

from pyro_vae.report.figures import Gallery
from pyro_vae.report.findings import Findings
from pyro_vae.report.gallery import inspect
from pyro_vae.report.page import report

__all__ = ["Findings", "Gallery", "inspect", "report"]
