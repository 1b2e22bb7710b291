"""One bit of any file that decides a number is noticed, or changes no number."""

import pytest

from pyro_vae.cli.run_data import read_data, write_data
from pyro_vae.datasets.named import load
from pyro_vae.files.checksums import with_checksum, with_seal
from pyro_vae.recipes.recipe import read_settings
from pyro_vae.report.run_files import as_json, read_file
from pyro_vae.validation import InvalidInput

RECIPE = "# Written.\ndata: digits\nscale: 255.0\nbinarize: none\nepochs: 12\n"
EVALUATION = {
    "elbo": {"mean": -95.25, "se": 0.5, "mc_se": None},
    "num_data": 20,
    "data": {"name": "digits", "split": "test", "binarize": "none", "sha256": "ab12"},
}


def evaluation(folder):
    (folder / "evaluation.json").write_bytes(as_json(EVALUATION, is_checked=True))
    return "evaluation.json", lambda: read_file(folder, "evaluation.json")


def recipe(folder):
    (folder / "recipe.yaml").write_text(with_seal(RECIPE))
    return "recipe.yaml", lambda: read_settings(folder / "recipe.yaml", inside=folder)


def data(folder):
    write_data(folder, *load("wine"))
    return "data.json", lambda: read_data(folder)


@pytest.mark.parametrize("write", [evaluation, recipe, data])
def test_one_bit_is_noticed(tmp_path, write):
    name, read = write(tmp_path)
    whole, expected = (tmp_path / name).read_bytes(), read()
    for place in range(0, len(whole), 1 + len(whole) // 500):
        for bit in (1 << (place % 8), 1 << (place % 5)):
            changed = bytes([*whole[:place], whole[place] ^ bit, *whole[place + 1 :]])
            (tmp_path / name).write_bytes(changed)
            try:
                found = read()
            except InvalidInput as error:
                assert "\n" not in str(error)
                continue
            # of white space, or of the checksum's own key
            extra = {**found} if isinstance(found, dict) else {}
            same = {key: extra[key] for key in extra if key in expected} if extra else found
            assert same == expected


def test_a_recipe_that_was_changed_by_hand_is_told_what_to_do(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(with_seal(RECIPE).replace("12", "13"))
    with pytest.raises(InvalidInput, match=r"altered.*if you changed it yourself, remove its last"):
        read_settings(path, inside=tmp_path)
    assert read_settings(path)["epochs"] == 13  # a recipe that a user names
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert read_settings(path, inside=tmp_path)["epochs"] == 13


def test_files_without_a_checksum_are_read(tmp_path):
    (tmp_path / "evaluation.json").write_bytes(as_json(EVALUATION))
    assert read_file(tmp_path, "evaluation.json") == EVALUATION
    assert with_checksum({"a": (1, 2)})["a"] == [1, 2]
