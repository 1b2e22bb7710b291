"""Options that vary: how they are written, and the folders that their combinations get."""

import pytest

from pyro_vae.sweeps.grid import combinations_of, read_axis
from pyro_vae.sweeps.search import read_range
from pyro_vae.validation import InvalidInput


def test_every_combination_comes_once_in_order():
    axes = [read_axis("prior=A,B"), read_axis("latent=1,2,3")]
    values = [setting.values for setting in combinations_of(axes)]
    assert len(set(values)) == 6
    assert values[1] == (("prior", "A"), ("latent", "2"))


def test_an_axis_of_one_value_is_not_in_the_name():
    (setting,) = combinations_of([read_axis("epochs=3")])
    assert setting.name == "" and setting.folder == "one" and setting.options == ["--epochs=3"]


def test_options_behind_a_value_go_with_it():
    settings = list(
        combinations_of(
            [read_axis("prior=A,B --prior.components '[1, 2]' --latent 3 --batch_size=4")]
        )
    )
    assert settings[0].options == ["--prior=A"]
    assert settings[1].options == [
        "--prior=B", "--prior.components", "[1, 2]", "--latent", "3", "--batch-size=4",
    ]  # fmt: skip


def test_settings_of_names_that_no_folder_can_have_get_folders_of_their_own():
    texts = ["encoder.hidden=[4],[4,4],4", "data=a/b,a-b"]
    for text in texts:
        folders = [setting.folder for setting in combinations_of([read_axis(text)])]
        assert len(set(folders)) == len(folders)
        assert all("/" not in folder and len(folder) < 140 for folder in folders)


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (read_axis, "prior", "an option and its values"),
        (read_axis, "prior=A,,B", "an option and its values"),
        (read_axis, "prior=A,A", "twice"),
        (read_axis, "seed=1,2", "--seeds 3"),
        (read_axis, "out=a,b", "a sweep sets it"),
        (read_range, "learning_rate=1e-3", "two numbers"),
        (read_range, "learning_rate=1..0", "the lesser first"),
        (read_range, "learning_rate=0..1:log", "above 0"),
        (read_range, "learning_rate=1..inf", "two numbers"),
        (read_range, "learning_rate=1..2:lin", "two numbers"),
    ],
)
def test_what_is_no_axis_and_no_range_is_refused(read, text, said):
    with pytest.raises(InvalidInput, match=said):
        read(text)


@pytest.mark.parametrize(
    ("text", "is_integer"), [("latent=5..50", True), ("latent=5..50.0", False)]
)
def test_a_range_between_integers_is_of_integers(text, is_integer):
    assert read_range(text).is_integer == is_integer
