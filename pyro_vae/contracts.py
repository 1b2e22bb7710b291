"""What the parts of the library expect of one another, as types."""

from __future__ import annotations

from typing import Any

__all__ = ["AnyProgram"]

# What keeps the contract of a program; nothing needs to be inherited, so there is no class to name.
AnyProgram = Any
