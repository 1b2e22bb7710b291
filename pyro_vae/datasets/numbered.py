"""Sentences as numbers: of words that they teach, or of a vocabulary that is known."""

from __future__ import annotations

from collections.abc import Iterable

from pyro_vae.datasets.sources import Part, Source, Texts
from pyro_vae.datasets.text import Vocabulary
from pyro_vae.validation import InvalidInput, short

__all__ = ["numbered"]

MOST_NAMED = 5  # unknown words in a line


def numbered(name: str, texts: Texts, known: Vocabulary | None, least: int = 2) -> Source:
    """Sentences in the numbers of their words.

    Args:
        name: of the text.
        texts: the words of its sentences.
        known: the words that have numbers, and the length of a sentence; by default the words that
            occur ``least`` times or more in training, and that of the longest sentence.
        least: how often a word must occur.
    """
    sentences = [sentence for split in texts.values() for sentence in split]
    longest = 1 + max(map(len, sentences))
    if known is None:
        vocabulary = Vocabulary.of(texts["train"], least)
        vocabulary.length = longest
    else:
        vocabulary = known
    length = longest if vocabulary.length is None else vocabulary.length
    if longest > length:
        first = next(sentence for sentence in sentences if len(sentence) >= length)
        raise InvalidInput(
            "data",
            got=f"{name}, with a sentence of {len(first)} words and signs, "
            f"{short(' '.join(first[:MOST_NAMED]))} ...",
            expected=f"at most {length - 1} in a sentence, as in the text that taught the words",
            fix="shorten it or leave it out",
        )
    parts = {split: Part(vocabulary.encode(few, length)) for split, few in texts.items()}
    notes = () if known is None else _unknown(sentences, known)
    return Source(name, parts, vocabulary=vocabulary, notes=notes)


def _unknown(sentences: Iterable[list[str]], vocabulary: Vocabulary) -> tuple[str, ...]:
    """A line on the words that a vocabulary lacks, if there are any."""
    words = [word for sentence in sentences for word in sentence]
    lacking = [word for word in words if word not in vocabulary.number]
    names = list(dict.fromkeys(lacking))
    if not names:
        return ()
    named = ", ".join(map(short, names[:MOST_NAMED])) + ", ..." * (len(names) > MOST_NAMED)
    verb = "is" if len(lacking) == 1 else "are"
    return (
        f"{len(lacking):,} of {len(words):,} words and signs {verb} not in the vocabulary, and "
        f"{verb} read as unknown: {named}",
    )
