"""The Markdown pages of the repository as pages of the site, linked to one another."""

import os
import re
import shutil
from pathlib import Path

LINK = re.compile(r"(!?)\[([^]]*)\]\s*\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```", re.M | re.S)
FROM_ROOT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
PICTURES = (".png", ".svg")

# Pages that are not made from a file of Markdown, by the file that their links name.
MADE = {"README.md": "index.rst", "docs/site/gallery.py": "gallery.rst"}


class Pages:
    """Copies of the repository's Markdown: docs/ at the top, all else where it is.

    Args:
        root: the repository.
        source: the folder that the site is built from.
    """

    def __init__(self, root: Path, source: Path):
        self.root, self.source = root, source
        files = [*(root / "docs").rglob("*.md"), *(root / "experiments").rglob("README.md")]
        files += [root / name for name in FROM_ROOT]
        self.places = {file.relative_to(root).as_posix(): self._place(file) for file in files}

    def _place(self, file: Path) -> str:
        """Where on the site a file of the repository goes."""
        is_guide = file.is_relative_to(self.root / "docs")
        return file.relative_to(self.root / "docs" if is_guide else self.root).as_posix()

    def names(self) -> list[str]:
        """The pages, as a menu names them."""
        return sorted(place.removesuffix(".md") for place in self.places.values())

    def write(self) -> None:
        """Write every page, and the pictures that they show."""
        for path, place in self.places.items():
            target = self.source / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self._linked(path, (self.root / path).read_text()))
        for picture in (self.root / "experiments").rglob("*.png"):
            target = self.source / picture.relative_to(self.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, target)

    def _linked(self, path: str, text: str) -> str:
        """A page's text with links to other pages; what has no page is named by its path."""
        parts, last = [], 0
        for code in CODE.finditer(text):  # whose brackets are no links
            parts += [self._links(path, text[last : code.start()]), code[0]]
            last = code.end()
        return "".join([*parts, self._links(path, text[last:])])

    def _links(self, path: str, text: str) -> str:
        def rewritten(found: re.Match[str]) -> str:
            mark, shown, target = found.groups()
            if re.match(r"\w+:|#", target):
                return found[0]
            file, _, anchor = target.partition("#")
            there = os.path.normpath(os.path.join(os.path.dirname(path), file))
            place = MADE.get(there) or self.places.get(there)
            if place is None and there.endswith(PICTURES):
                place = there
            if place is None:
                return f"{shown} (`{there}`)"
            here = os.path.dirname(self.places[path])
            link = os.path.relpath(place, here or ".") + (f"#{anchor}" if anchor else "")
            return f"{mark}[{shown}]({link})"

        return LINK.sub(rewritten, text)
