"""A check that could not tell says what to change, whatever the reason."""

import ast
from pathlib import Path

import pytest
from test_checks import EXACT, normal

import pyro_vae as pv
from pyro_vae.checks import CannotTell, Check, DoesNotApply, Finding, running
from pyro_vae.checks.subject import Subject
from pyro_vae.datasets import Dataset

pytestmark = pytest.mark.usefixtures("float64")

SOURCES = sorted(Path(running.__file__).parent.rglob("*.py"))
QUESTIONS = [path for path in SOURCES if path.parent.name == "questions"]


def calls(path, name):
    tree = ast.parse(path.read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [node for node in found if isinstance(node.func, ast.Name) and node.func.id == name]


def test_every_refusal_to_tell_names_a_change():
    refusals = [(path, call) for path in SOURCES for call in calls(path, "CannotTell")]
    assert len(refusals) > 7
    for path, call in refusals:
        assert len(call.args) == 2, f"{path}:{call.lineno}"
    with pytest.raises(TypeError):
        CannotTell("no change")
    assert DoesNotApply("nothing changes that").change == ""


@pytest.mark.parametrize("path", QUESTIONS, ids=lambda path: path.stem)
def test_every_finding_without_a_verdict_names_a_change(path):
    for call in calls(path, "Finding"):
        given = {each.arg for each in call.keywords}
        judged = {"p_value", "passed"} & given
        assert judged or "change" in given, f"{path}:{call.lineno}"


class Broken(Check):
    name, question = "broken", "?"

    def look(self, subject):
        raise RuntimeError("a program's own error")


class Unsure(Check):
    name, question = "unsure", "?"

    def look(self, subject):
        raise CannotTell("too few", "Take more.")


def test_the_change_is_that_of_the_refusal():
    subject = Subject(EXACT.program(), Dataset(normal(2)))
    assert running.finding_of(Unsure(), subject) == Finding("too few", change="Take more.")
    assert "check again" in running.finding_of(Broken(), subject).change


def test_of_a_single_datum_each_open_verdict_has_advice():
    cheap = [each for each in running.all_checks() if each.calls <= 40]
    found = pv.check(EXACT.program(), normal(1), checks=cheap, minutes=0.2)
    open_ones = found.of(None)
    assert len(open_ones) > 5
    for each in open_ones:
        assert each.change.endswith("."), each.name
