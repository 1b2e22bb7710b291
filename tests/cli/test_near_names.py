"""A refusal names what was meant: a file nearby, the class that takes an option."""

import pytest
from commands import fails


def test_a_file_of_nearly_that_name_is_named(tmp_path, capsys):
    (tmp_path / "patients.csv").write_text("a,b\n1,2\n")
    said = fails(capsys, "train", "--data", tmp_path / "patient.csv")
    assert f"did you mean '{tmp_path / 'patients.csv'}'?" in said
    assert "did you mean" not in fails(capsys, "train", "--data", tmp_path / "birds.csv")
    assert "did you mean" not in fails(capsys, "train", "--data", tmp_path / "no" / "patients.csv")


@pytest.mark.parametrize(
    "flags, named",
    [
        (["--prior.components", "50"], "--prior GaussianMixture or BayesianMixture or VampPrior"),
        (["--posterior.transforms", "2"], "--posterior Flow"),
        (["--prior", "GaussianMixture", "--prior.component", "50"], "did you mean 'components'?"),
        (["--posterior.nonsense", "2"], "leave it out"),
    ],
)
def test_an_option_of_another_class_names_that_class(flags, named, capsys):
    assert named in fails(capsys, "train", *flags)
