"""A report shows the commands that were given, safe to paste, and every formula as a picture."""

import inspect
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from commands import FAST

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.report import markup
from pyro_vae.report.commands import command_that_scored, given_commands, remember
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("quick_figures")


def write(folder, *commands):
    found = [{"date": "2026-11-28 12:00 UTC", "words": list(words)} for words in commands]
    (folder / "commands.json").write_text(json.dumps({"commands": found}))


def lines(folder):
    return [line for _, line in given_commands(folder)]


def test_commands_are_kept_in_order_and_once(tmp_path):
    for words in (["train", "--epochs", "2"], ["evaluate", "a b"], ["inspect", "r"],
                  ["evaluate", "a b"]):  # fmt: skip
        remember(tmp_path, words)
    assert lines(tmp_path) == [
        "pyro-vae train --epochs 2", "pyro-vae inspect r", "pyro-vae evaluate 'a b'",
    ]  # fmt: skip
    dates = [date for date, _ in given_commands(tmp_path)]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", date) for date in dates)
    remember(tmp_path, ["train"], anew=True)
    assert lines(tmp_path) == ["pyro-vae train"]


def test_a_stranger_s_commands_are_safe_to_paste(tmp_path):
    """They name no component of a stranger's, which a pasted command would trust and run."""
    of_ours = ["--prior", "VampPrior", "--encoder.activation", "torch.nn.Tanh"]
    fine = ["train", *of_ours, "--optimizer.betas", "[0.9, 0.99]", "--prior.components", "5"]
    write(
        tmp_path,
        ["train; rm -rf ~"],
        ["evaluate", "$(touch /tmp/x)", "; ls", "--seed", "`id`"],
        ["train", "--trust", "evil", "--prior", "evil.P"],
        ["train", "--trust=evil"],
        ["train", "--program", "subprocess.Popen", "--program.args", "id"],
        ["train", "--schedule=os.system"],
        ["train", "--sites", "{x: {likelihood: {class_path: evil.Normal}}}"],
        ["train", "--encoder.activation", "evil.Act", "--epochs", "2"],
        ["train", "--level-network={class_path: evil.Net}"],
        fine,
        ["inspect", "run\nrm -rf ~"],
        ["evaluate", "\x1b[201~"],
        [],
    )
    found = lines(tmp_path)
    assert [shlex.split(line) for line in found] == [
        ["pyro-vae", "evaluate", "$(touch /tmp/x)", "; ls", "--seed", "`id`"],
        ["pyro-vae", "train"],
        ["pyro-vae", *fine],
    ]
    assert found[0] == "pyro-vae evaluate '$(touch /tmp/x)' '; ls' --seed '`id`'"


@pytest.mark.parametrize("content", ["[]", "{}", '{"commands": 3}', '{"commands": [{"words": 1}]}'])
def test_a_damaged_file_is_one_line(tmp_path, content):
    (tmp_path / "commands.json").write_text(content)
    with pytest.raises(InvalidInput):
        if list(given_commands(tmp_path)) == []:
            raise InvalidInput("run", got="nothing", expected="commands", fix="none")


def test_the_report_has_commands_dates_times_and_a_folded_recipe(tmp_path):
    folder = tmp_path / "run"
    assert main(["train", "--out", str(folder), "--binarize", "dynamic", *FAST]) == 0
    assert main(["evaluate", str(folder), "--num-samples", "20", "--limit", "10"]) == 0
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert f"pyro-vae train --out {folder} --binarize dynamic --epochs 2" in page
    assert f"pyro-vae evaluate {folder} --num-samples 20 --limit 10" in page
    assert re.search(r"2 epochs in [\d.]+ seconds", page)
    assert "<details><summary><code>recipe.yaml</code></summary>" in page


def test_the_command_that_makes_the_scores_again_is_the_one_that_made_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("own", 0), ("other", 1)):
        x = np.random.default_rng(seed).random((40, 6)) < 0.5
        np.savez(f"{name}.npz", x=x.astype("float32"))
    small = ["--latent", "2", "--encoder.hidden", "[4]", "--decoder.hidden", "[4]"]
    assert main(["train", "--data", "own.npz", *small, "--out", "run", *FAST]) == 0
    assert command_that_scored(Path("run")) is None
    words = ["evaluate", "./run", "--data", "other.npz", "--num-samples", "30", "--seed", "3"]
    assert main([*words, "--proposal", "Widened", "--trust", "math"]) == 0
    line = "pyro-vae evaluate run --data other.npz --num-samples 30 --seed 3 --proposal Widened"
    assert command_that_scored(Path("run")) == line
    assert main(["report", "run"]) == 0
    page = Path("run/report.html").read_text()
    assert f"{line}\npyro-vae inspect run" in page
    scored = Path("run/evaluation.json").read_text()
    assert main(shlex.split(line)[1:]) == 0
    assert Path("run/evaluation.json").read_text() == scored
    remember(Path("run"), ["evaluate", "run", "--proposal", "os.system"])
    assert command_that_scored(Path("run")) is None


FAMILIES = (pv.priors, pv.likelihoods, pv.posteriors, pv.networks, pv.objectives)


@pytest.mark.usefixtures("real_figures")
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_every_formula_of_a_component_is_drawn(family):
    for name in family.__all__:
        doc = inspect.getdoc(getattr(family, name)) or ""
        for block in re.findall(r"\.\. math::(.*?)(?:\n\s*\n|\Z)", doc, re.S):
            assert markup.formula(" ".join(block.split())).startswith("<img"), (name, block)


def test_what_cannot_be_drawn_is_shown_as_it_is(real_figures):
    assert markup.formula(r"\nothing{x}") == r"<code>\nothing{x}</code>"


def test_long_formulas_have_several_lines(real_figures):
    short, long = (markup.formula(latex) for latex in (r"a = b", r"a = b, \quad b = c, \quad c"))

    def height(image):
        import base64

        svg = base64.b64decode(image.partition("base64,")[2].rstrip('">')).decode()
        return float(re.search(r'height="([\d.]+)pt"', svg)[1])

    assert height(long) > 2 * height(short)
