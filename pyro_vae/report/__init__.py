"""The gallery of a run's figures, and its report as one HTML page.

Which figures a program gets, and how they are shown, is decided here. Each figure is drawn in
`pyro_vae.plotting`.
"""

from pyro_vae.report.gallery import Gallery, inspect
from pyro_vae.report.page import report

__all__ = ["Gallery", "inspect", "report"]
