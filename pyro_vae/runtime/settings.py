"""How a computation is run: its seed, its memory, and whether it is compiled or shows a bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pyro_vae.validation import check_choice

__all__ = ["COMPILE", "Compile", "Settings"]

Compile = Literal["auto", "on", "off"]
COMPILE: tuple[Compile, ...] = get_args(Compile)


@dataclass(frozen=True)
class Settings:
    """The settings of a computation; the seed alone decides its draws.

    Args:
        seed: seed of the draws.
        compile: whether repeated work is compiled as one graph; ``"auto"`` where that pays.
        progress: show a bar.
    """

    seed: int = 0
    compile: Compile = "auto"
    progress: bool = False

    def __post_init__(self) -> None:
        check_choice("compile", self.compile, COMPILE)
