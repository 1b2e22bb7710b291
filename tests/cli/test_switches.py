"""Options that are on or off, and refusals whose remedy can be pasted."""

import pytest
from commands import FAST

from pyro_vae.cli import main, train
from pyro_vae.cli.options import as_options


@pytest.mark.parametrize("switch", [["--standardize"], ["--standardize", "true"]])
def test_a_switch_may_stand_without_a_value(tmp_path, switch):
    run = tmp_path / "run"
    words = ["--data", "wine", "--likelihood", "Normal", *switch, "--out", str(run), *FAST]
    assert main(["train", *words]) == 0
    assert "standardize: true" in (run / "recipe.yaml").read_text()


def test_a_text_under_the_likelihood_of_images_is_told_one_of_words(tmp_path, capsys):
    words = ["train", "--data", "sentences", "--out", str(tmp_path / "run"), *FAST]
    assert main(words) == 2
    said = capsys.readouterr().err
    fix = said[said.index("(--likelihood") + 1 : said.index(")", said.index("(--likelihood"))]
    assert fix == "--likelihood AutoregressiveCategorical --encoder Recurrent"
    assert train.prepare(as_options([*words[1:], *fix.split()])).program.event_shape is not None
