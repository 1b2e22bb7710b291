"""Checksums inside of files, by which an accident to any value that they hold is noticed.

They find accidents, not forgers: who can write a file can write its checksum. A file without one,
as earlier versions and people write, is read as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["CHECKSUM", "checksum_of", "is_whole", "is_whole_text", "with_checksum", "with_seal"]

CHECKSUM = "checksum"  # its key in JSON
SEAL = "# SHA-256 of the lines above: "  # in YAML


def checksum_of(values: Mapping[str, Any]) -> str:
    """The SHA-256 of values as JSON, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def with_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON will give them back, with the checksum of them all.

    Example:
        >>> is_whole(with_checksum({"mean": 1.5})), is_whole(with_checksum({}) | {"mean": 1.5})
        (True, False)
    """
    read = json.loads(json.dumps(values))
    return {**read, CHECKSUM: checksum_of(read)}


def is_whole(values: object) -> bool:
    """Whether values have no checksum, or their own."""
    if not isinstance(values, dict) or CHECKSUM not in values:
        return True
    rest = {key: value for key, value in values.items() if key != CHECKSUM}
    return bool(values[CHECKSUM] == checksum_of(rest))


def with_seal(text: str) -> str:
    """A text of whole lines with a comment at its end that holds their checksum."""
    return f"{text}{SEAL}{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()}\n"


def is_whole_text(text: str) -> bool:
    """Whether a text has no such comment, or its own.

    Example:
        >>> sealed = with_seal("seed: 1\\n")
        >>> is_whole_text(sealed), is_whole_text(sealed.replace("1", "2", 1))
        (True, False)
    """
    body, found, _ = text.rpartition(SEAL)
    return not found or with_seal(body) == text
