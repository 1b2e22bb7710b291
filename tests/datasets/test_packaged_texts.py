"""Passages of documentation."""

import torch

from pyro_vae.datasets import load
from pyro_vae.datasets.packaged import _passages

SOURCE = '''
def one():
    """The first sentence says what the function makes of its argument.

    Another sentence says that nothing else is changed by it, and that the argument stays.
    """
    return """print(x)"""


def two():
    """The first sentence says what the function makes of its argument.

    A third one follows, and tells a reader what the errors are and where they come from here.
    The last has no room.  It would be the first of another passage, which has too few words.
    """
'''


def test_a_passage_is_sentences_in_their_order_without_repetition():
    (passage,) = _passages(SOURCE, set())
    line = " ".join(passage)
    assert line.count("the first sentence") == 1 and "print" not in passage
    assert line.index("another") < line.index("a third") < line.index("the last")
    assert len(passage) <= 64 and "too few words" not in line
    assert _passages(SOURCE, {tuple(passage)}) == [passage]
    seen: set = set()
    _passages(SOURCE, seen)
    assert _passages(SOURCE, seen) == []


def test_the_passages_are_what_they_say():
    train, test = load("passages")
    for data in (train, test):
        length = (data.x != 0).sum(1)
        assert length.min() >= 40 and length.max() <= 64 and data.event_shape == (65,)
    assert len(train) > 2000 and len(test) > 200
    counts = torch.bincount(train.x.long().flatten(), minlength=len(train.vocabulary))
    assert (counts[2:] >= 10).all(), "a listed word occurs ten times or more in training"
    assert not set(test.text) & set(train.text)
