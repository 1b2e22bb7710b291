"""The cache folder: an absolute XDG_CACHE_HOME, or the home's, or none."""

import os
import pwd
from pathlib import Path

import pytest

from pyro_vae.files.cache import cache_folder


def test_an_absolute_folder_counts_and_a_relative_one_does_not(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere" / "pyro_vae"
    for given in ("cache", ""):  # a stranger's folder may be the working one
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert cache_folder() == tmp_path / ".cache" / "pyro_vae"


@pytest.mark.parametrize("home", [None, "", "here"])
def test_a_user_without_a_home_has_none(monkeypatch, home):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    if home is None:

        def nobody(uid):
            raise KeyError(uid)

        monkeypatch.setattr(pwd, "getpwuid", nobody)
    else:
        monkeypatch.setenv("HOME", home)
    assert cache_folder() is None or (not home and cache_folder().is_relative_to(Path(os.sep)))
