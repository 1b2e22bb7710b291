"""Programs of one number of data: a size that is written down and not read off the data."""

from __future__ import annotations

import re
from collections.abc import Callable

from pyro_vae.validation import InvalidInput

__all__ = ["check_sizes_follow"]

PLATE = re.compile(r"inside plate\('(.+)'\) at site .+ dim -\d+, (\d+) vs (\d+)")


def check_sizes_follow(error: Exception, again: Callable[[], object]) -> None:
    """Raise `InvalidInput` if an error at three data is of a size that meets their number.

    At two data the same error then names the two, and the other size again.

    Args:
        error: what a run at three data raised.
        again: the same at two.
    """
    if isinstance(error, InvalidInput):
        return
    try:
        again()
        return
    except (RuntimeError, ValueError) as other:
        first, second = (str(each).splitlines()[0] for each in (error, other))
    at_three, at_two = (re.findall(r"\d+", line) for line in (first, second))
    is_alike = re.sub(r"\d+", "", first) == re.sub(r"\d+", "", second)
    changed = [pair for pair in zip(at_three, at_two) if pair[0] != pair[1]]
    if not is_alike or set(changed) != {("3", "2")}:
        return
    plate = PLATE.search(first)
    if plate and plate[3] != "3":  # the plate follows the data, and the density does not
        return
    if plate:
        raise InvalidInput(
            f"plate {plate[1]!r}",
            got=f"a size of {plate[2]} for any number of data",
            expected="the number of data of the batch that the model is given",
            fix=f"write pyro.plate({plate[1]!r}, len(x)) inside of model and guide",
        ) from error
    raise InvalidInput(
        "program",
        got=f"a fixed size that meets the number of data, which is 3 at a first run ({first})",
        expected="model and guide that run at any number of data",
        fix="write len(x) where the number of data, or that of a batch, is written down; if none "
        "is, a dimension is missing, as of scale.unsqueeze(-1)",
    ) from error
