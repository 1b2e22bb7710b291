"""Sentences as sequences of numbers, and back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from pyro_vae.validation import InvalidInput

__all__ = [
    "END",
    "UNKNOWN",
    "Vocabulary",
    "check_lengths",
    "exact_words",
    "joined",
    "sections",
    "sentences",
    "words",
]

END, UNKNOWN = 0, 1

LONGEST = 2000  # words of a line: a recurrent network's backward pass overflows the stack on 10^4

# A heading of reStructuredText: a line with a row of one sign below it.
HEADING = re.compile(r"^\S.*\n([=*~^\-\"+#])\1{2,}$", re.MULTILINE)

# A sentence of prose: words, signs and quotation marks, from a capital letter to a full stop or a
# colon. Anything else is a piece of code.
PROSE = re.compile(r"[A-Z(\"“*][\w\s.,;:()'\u2019\"“”*`?!—-]+[.:]")

CODE = re.compile(r"\S\([^)\s]|\.\.\.|>>>")

WORD = re.compile(r"\w+(?:[.'-]\w+)*|[.,;:()?!—]")
ANY_WORD = re.compile(r"\w+(?:[.'-]\w+)*|[^\w\s]")

# In front of a word that stands behind another, or apart from it, other than in prose.
TIE, GAP = "\u2040", "\u2423"


class Vocabulary:
    r"""Words and their numbers.

    Number 0 ends a sentence and fills the places behind it; 1 stands for all words that are not
    listed.

    Args:
        listed: the words, in the order of their numbers, which begin at 2.
        length: places of a sentence, the last for its end; by default as the longest needs.

    Example:
        >>> vocabulary = Vocabulary(["a", "name", "."])
        >>> x = vocabulary.encode([["a", "new", "name", "."]], length=6)
        >>> x.tolist(), vocabulary.decode(x), len(vocabulary)
        ([[2.0, 1.0, 3.0, 4.0, 0.0, 0.0]], ['a _ name.'], 5)
    """

    def __init__(self, listed: Iterable[str], length: int | None = None):
        self.words, self.length = list(listed), length
        self.number = {word: number for number, word in enumerate(self.words, UNKNOWN + 1)}

    @classmethod
    def of(cls, tokens: Iterable[Sequence[str]], least: int = 2) -> Vocabulary:
        """A vocabulary of the words that occur at least ``least`` times, in alphabetical order."""
        counts = Counter(word for sentence in tokens for word in sentence)
        return cls(sorted(word for word, count in counts.items() if count >= least))

    def __len__(self) -> int:
        return UNKNOWN + 1 + len(self.words)

    def encode(self, tokens: Sequence[Sequence[str]], length: int) -> Tensor:
        """Sentences as numbers (N, length), each with at least one 0 at its end.

        Raises:
            InvalidInput: if a sentence is too long.
        """
        longest = max(map(len, tokens), default=0)
        if longest >= length:
            raise InvalidInput(
                "length",
                got=f"{length} for a sentence of {longest} words",
                expected="a place for each word and for the end",
                fix=f"pass length={longest + 1}",
            )
        x = np.zeros((len(tokens), length), dtype=np.float32)
        for row, sentence in zip(x, tokens):
            row[: len(sentence)] = [self.number.get(word, UNKNOWN) for word in sentence]
        return torch.from_numpy(x)

    def decode(self, x: Tensor) -> list[str]:
        """The sentences that numbers (N, length) stand for, a ``_`` for each unknown word."""
        shown = ["", "_", *self.words]
        rows = [takewhile(lambda number: number != END, row) for row in x.long().tolist()]
        return [joined([shown[number] for number in row]) for row in rows]


def sections(text: str) -> list[str]:
    """The texts between the headings of a reStructuredText document."""
    return HEADING.split(text)[::2]


def sentences(section: str) -> list[str]:
    """The sentences of a section that are prose, without code, tables and definitions.

    Example:
        >>> sentences("Names refer to\\nobjects.\\n\\n   x = 1\\n\\n* A block is executed.")
        ['Names refer to objects.', 'A block is executed.']
    """
    found = []
    for paragraph in re.split(r"\n\s*\n", section):
        whole = re.sub(r"\s+", " ", re.sub(r"-\n\s*", "-", paragraph.strip())).removeprefix("* ")
        found += re.split(r"(?<=[.!?:]) (?=[A-Z\"“(*])", whole)
    return [
        sentence for sentence in found if PROSE.fullmatch(sentence) and not CODE.search(sentence)
    ]


def words(sentence: str) -> list[str]:
    """The words and signs of a sentence, in lower case and without quotation marks.

    Example:
        >>> words('The "print()" function isn’t a statement.')
        ['the', 'print', 'function', "isn't", 'a', 'statement', '.']
    """
    return WORD.findall(sentence.lower().replace("\u2019", "'").replace("()", ""))


def exact_words(line: str) -> list[str]:
    """The words and signs of a line such that `joined` gives the line back.

    Runs of white space become one space; nothing else is changed. A word that stands apart from the
    one before, or together with it, other than in prose, is marked as such.

    Example:
        >>> exact_words("CC(=O)Oc1")
        ['CC', '\u2040(', '=', '\u2040O', ')', '\u2040Oc1']
        >>> joined(exact_words("CC(=O)Oc1")), exact_words("It is (so) here.")
        ('CC(=O)Oc1', ['It', 'is', '(', 'so', ')', 'here', '.'])
    """
    line = " ".join(line.split())
    found: list[str] = []
    for match in ANY_WORD.finditer(line):
        word, before = match[0], line[: match.start()]
        apart = before.endswith(" ")
        if not before or apart == _stands_apart(before.rstrip(), word):
            found.append(word)
        else:
            found.append((GAP if apart else TIE) + word)
    return found


def check_lengths(name: object, lines: Sequence[Sequence[str]]) -> None:
    """Raise `InvalidInput` if a line has more words than a recurrent network can be trained on.

    Example:
        >>> check_lengths("a.txt", [["a", "line"]])
    """
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST:
            raise InvalidInput(
                "data",
                got=f"{name}, whose line {number} has {len(line):,} words and signs",
                expected=f"at most {LONGEST:,} on a line",
                fix="write each sentence on a line of its own",
            )


def joined(tokens: Iterable[str]) -> str:
    """The line that words and signs spell."""
    line = ""
    for token in tokens:
        if token[:1] in (TIE, GAP) and len(token) > 1:
            line += (" " if token[0] == GAP else "") + token[1:]
        else:
            line += (" " if line and _stands_apart(line, token) else "") + token
    return line


def _stands_apart(before: str, word: str) -> bool:
    """Whether prose has a space between a word and what stands before it."""
    return not (word[:1] in set(".,;:)?!") or before.endswith("("))
