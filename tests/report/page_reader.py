"""An HTML page as a test reads it: elements with their attributes, tables as rows of text, plain text."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "input", "br"}


@dataclass
class Element:
    """One element with its children."""

    tag: str
    attributes: dict[str, str]
    children: list["Element | str"] = field(default_factory=list)

    def all(self, tag: str, name: str = "") -> list["Element"]:
        """Elements below by tag and class."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if child.tag == tag and (not name or name in child.attributes.get("class", "").split()):
                    found.append(child)
                found += child.all(tag, name)
        return found

    def everything(self) -> list["Element"]:
        """Every element below."""
        below = [child for child in self.children if isinstance(child, Element)]
        return below + [element for child in below for element in child.everything()]

    @property
    def text(self) -> str:
        """All text below, white space as one blank."""
        raw = "".join(child if isinstance(child, str) else child.text + " " for child in self.children)
        return " ".join(raw.split())

    @property
    def lines(self) -> list[str]:
        """The text directly inside, line by line."""
        return "".join(child for child in self.children if isinstance(child, str)).splitlines()

    def table(self, caption: str) -> list[list[str]]:
        """The rows of the table whose caption starts with ``caption``, its head included."""
        (table,) = [
            table for table in self.all("table") if any(own.text.startswith(caption) for own in table.all("caption"))
        ]
        return [[cell.text for cell in row.everything() if cell.tag in ("th", "td")] for row in table.all("tr")]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            closed = self.open.pop()
            assert closed.tag == tag, f"<{closed.tag}> is closed by </{tag}>"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(page: Path) -> Element:
    """The page's tree; elements must be properly nested."""
    reader = _Reader()
    reader.feed(page.read_text("utf-8"))
    assert reader.open == [reader.root], "an element is never closed"
    return reader.root
