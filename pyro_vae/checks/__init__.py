"""Checks of a trained program: what a careful reviewer would ask, each with a verdict.

`check` asks all of it in a given time; `Check` is what a question of your own inherits from. The
questions themselves are the modules of `pyro_vae.checks.questions`.
"""

from pyro_vae.checks.base import WORDS, Check, Checked, Finding, Verdict
from pyro_vae.checks.running import all_checks, check
from pyro_vae.checks.subject import CannotTell, Claims, DoesNotApply, Scored, Subject

__all__ = [
    "WORDS",
    "CannotTell",
    "Check",
    "Checked",
    "Claims",
    "DoesNotApply",
    "Finding",
    "Scored",
    "Subject",
    "Verdict",
    "all_checks",
    "check",
]
