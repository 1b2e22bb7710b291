"""Options that vary: how they are written, and the folders that their combinations get."""

import pytest

from pyro_vae.sweeps.grid import OWN, check_each_once, combinations_of, read_axis
from pyro_vae.sweeps.search import read_range
from pyro_vae.sweeps.sweep import Plan
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


def test_the_name_of_a_column_keeps_its_underscores():
    axis = read_axis("columns.blood_pressure=real,drop --columns.heart_rate drop --batch_size 4")
    assert [setting.options for setting in combinations_of([axis])] == [
        ["--columns.blood_pressure=real"],
        ["--columns.blood_pressure=drop", "--columns.heart_rate", "drop", "--batch-size", "4"],
    ]


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
        (read_axis, "limit=10,20", "give --limit to the sweep itself"),
        (read_axis, "num_samples=5,6", "give --num-samples to the sweep itself"),
        (read_axis, "se=1,2", "--seeds 3"),
        (read_axis, "latent=2 --seed 5,3 --seed 6", "--seeds 3"),
        (read_axis, "latent=2 --num_samples=5,3", "give --num-samples to the sweep itself"),
        (read_axis, "latent=2 --latent 3,4", "latent twice"),
        (read_axis, "latent=2 --name 'a", "close the quotes"),
        (read_range, "seed=0..9", "--seeds 3"),
        (read_range, "--out=1..3", "a sweep sets it"),
        (read_range, "resume=0..1", "a sweep sets it"),
        (read_range, "trust=1..2", "give --trust to the sweep itself"),
        (read_range, "limit=1..3", "give --limit to the sweep itself"),
        (read_range, "num_s=1..3", "give --num-samples to the sweep itself"),
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


def test_what_a_sweep_says_to_a_training_is_what_nobody_may_vary(tmp_path):
    (setting,) = combinations_of([read_axis("latent=2")])
    train, _ = Plan(tmp_path, 1, (), "mine").trial(setting, 0).commands
    flags = {token[2:].partition("=")[0] for token in train if token.startswith("--")}
    assert flags == {*OWN, "latent"}


@pytest.mark.parametrize(
    ("texts", "searched"),
    [
        (["latent=2", "latent=3"], []),
        (["prior=A --latent 3,B", "latent=2,4"], []),
        (["prior=A --latent 3,B", "posterior=C,D --latent=4"], []),
        (["prior=A,B --latent 3"], ["latent"]),
        ([], ["latent", "latent"]),
    ],
)
def test_no_option_is_set_from_two_places(texts, searched):
    with pytest.raises(InvalidInput, match="got latent twice"):
        check_each_once([read_axis(text) for text in texts], searched)
    check_each_once([read_axis("prior=A --latent 3,B --latent 4")], ["epochs"])
