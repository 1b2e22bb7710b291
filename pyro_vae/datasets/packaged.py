"""Data sets from installed packages: scikit-learn's tables and digits, Python's own texts."""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pyro_vae.datasets.forms import shuffled
from pyro_vae.datasets.sources import Part, Parts, Texts
from pyro_vae.datasets.text import sections, sentences, words

__all__ = ["digits", "passages", "python_sentences", "table", "topics"]

WORDS, PASSAGE = 500, 100  # counted words, and words of a passage
SHORTEST, LONGEST = 5, 27  # words of a sentence
FEWEST, MOST = 40, 64  # words of a passage of prose
DOCUMENTATION = re.compile(r'"""(.+?)"""', re.DOTALL)
NO_DOCUMENTATION = {"site-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"}


def digits(folder: Path) -> Parts:
    """Scikit-learn's 8x8 digits; the test set is the last fifth, by other writers."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = (data.images / 16).astype(np.float32)[:, None], data.target.astype(np.int64)
    return {"train": Part(x[:1437], y[:1437]), "test": Part(x[1437:], y[1437:])}


def table(name: str, with_label: bool = False) -> Callable[[Path], Parts]:
    """A scikit-learn table, standardised by its training rows.

    The rows are shuffled, and every fifth is a test row. ``with_label`` makes the label the last
    column, too.
    """

    def read(folder: Path) -> Parts:
        from sklearn.datasets import load_breast_cancer, load_wine

        data = {"wine": load_wine, "breast_cancer": load_breast_cancer}[name]()
        order = shuffled(len(data.data), seed=0).numpy()
        x, y = data.data[order], data.target[order].astype(np.int64)
        is_test = np.arange(len(x)) % 5 == 4
        x = (x - x[~is_test].mean(0)) / x[~is_test].std(0)
        if with_label:
            x = np.column_stack([x, y])
        x = x.astype(np.float32)
        return {"train": Part(x[~is_test], y[~is_test]), "test": Part(x[is_test], y[is_test])}

    return read


def topics(folder: Path) -> Parts:
    """Word counts of passages in Python's reference texts, which vary with its version.

    A passage has a hundred words, and every fifth is a test passage; the words counted are the 500
    most frequent ones of the training passages.
    """
    from pydoc_data.topics import topics as texts

    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    found_in = []
    for _, text in sorted(texts.items()):
        found = re.findall(r"[a-z]{3,}", text.lower())
        found_in += [Counter(found[i : i + PASSAGE]) for i in range(0, len(found), PASSAGE)]
    parts = {"train": [p for i, p in enumerate(found_in) if i % 5 != 4], "test": found_in[4::5]}
    total = sum(parts["train"], Counter())
    ranks = sorted((-n, word) for word, n in total.items() if word not in ENGLISH_STOP_WORDS)
    vocabulary = sorted(word for _, word in ranks[:WORDS])
    counts = {
        split: np.array([[p[word] for word in vocabulary] for p in few], dtype=np.float32)
        for split, few in parts.items()
    }
    return {split: Part(x[x.sum(1) > 0]) for split, x in counts.items()}


def python_sentences() -> Texts:
    """Distinct sentences of Python's reference texts; every eighth section is for testing."""
    from pydoc_data.topics import topics as texts

    found: list[list[list[str]]] = []
    seen: set[tuple[str, ...]] = set()
    for _, text in sorted(texts.items()):
        for section in sections(text):  # a section may be part of several topics
            new = dict.fromkeys(tuple(words(sentence)) for sentence in sentences(section))
            kept = [
                list(sentence)
                for sentence in new
                if SHORTEST <= len(sentence) <= LONGEST and sentence not in seen
            ]
            seen.update(new)
            found += [kept] if kept else []
    test = found[7::8]
    train = [section for i, section in enumerate(found) if i % 8 != 7]
    return {"train": [s for few in train for s in few], "test": [s for few in test for s in few]}


def passages() -> Texts:
    """Passages of the documentation of Python's standard library and of NumPy, by module.

    A passage is sentences that follow one another, 40 to 64 words; a sentence that was met before
    is left out. Every eighth module is for testing. They vary with both versions.
    """
    found: list[list[list[str]]] = []
    seen: set[tuple[str, ...]] = set()
    for root in (Path(sysconfig.get_paths()["stdlib"]), Path(np.__file__).parent):
        for path in sorted(root.rglob("*.py")):
            if NO_DOCUMENTATION.isdisjoint(path.relative_to(root).parts):
                module = _passages(path.read_text(errors="replace"), seen)
                found += [module] if module else []
    test = found[7::8]
    train = [module for i, module in enumerate(found) if i % 8 != 7]
    return {"train": [p for few in train for p in few], "test": [p for few in test for p in few]}


def _passages(source: str, seen: set[tuple[str, ...]]) -> list[list[str]]:
    """Passages of the documentation in a module, without sentences that were seen."""
    made: list[list[str]] = [[]]
    for text in DOCUMENTATION.findall(source):
        for sentence in map(tuple, map(words, sentences(text))):
            if sentence in seen or not SHORTEST <= len(sentence) <= MOST:
                continue
            seen.add(sentence)
            if len(made[-1]) + len(sentence) > MOST:
                made.append([])
            made[-1] += sentence
    return [passage for passage in made if len(passage) >= FEWEST]
