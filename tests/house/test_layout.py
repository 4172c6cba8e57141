"""The page on architecture: its picture of the engine's rooms, and its lists of files."""

import re

import pytest
from support.checkout import ROOT
from support.imports import PACKAGE, graph_of
from test_floors import ENGINE, ROOM_PLACES, room_of

PAGE = (ROOT / "docs" / "develop" / "layout.md").read_text()


def arrows_drawn(page):
    """Every (room, room) of the page's mermaid diagram."""
    (diagram,) = re.findall(r"^```mermaid\n(.*?)^```", page, flags=re.M | re.S)
    return set(re.findall(r"^\s*(\w+) --> (\w+)$", diagram, flags=re.M))


def arrows_of_imports(root):
    pairs = {(room_of(module), room_of(target)) for module, _, _, target in graph_of(root)}
    return {(above, below) for above, below in pairs if above and below and above != below}


def followed(arrows):
    """All pairs of which the first leads to the second, by one arrow or more."""
    found = set(arrows)
    while more := {(a, d) for a, b in found for c, d in found if b == c} - found:
        found |= more
    return found


def without_shortcuts(arrows):
    """The arrows that do not follow from others."""
    everything = followed(arrows)
    return {
        (a, c) for a, c in arrows if not any((a, b) in everything and (b, c) in everything
                                             for b in ROOM_PLACES)
    }  # fmt: skip


def test_the_picture_shows_what_the_rooms_import():
    assert arrows_drawn(PAGE) == without_shortcuts(arrows_of_imports(ROOT))


def test_every_room_is_drawn_and_described():
    (diagram,) = re.findall(r"^```mermaid\n(.*?)^```", PAGE, flags=re.M | re.S)
    drawn = re.findall(r"^\s*(\w+)\[", diagram, flags=re.M)
    assert sorted(drawn) == sorted(ROOM_PLACES)


FOLDERS = sorted(
    p.name for p in (ROOT / PACKAGE / ENGINE).iterdir() if (p / "__init__.py").exists()
)


@pytest.mark.parametrize("room", FOLDERS)
def test_the_page_lists_the_files_of_a_room(room):
    table = PAGE.split(f"| in `{room}/` | purpose |")[1].split("\n\n")[0]
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]*) \|", table, flags=re.M)))
    files = {path.stem for path in (ROOT / PACKAGE / ENGINE / room).glob("[a-z]*.py")}
    assert sorted(listed) == sorted(files)


def test_a_shortcut_is_left_out_and_a_wrong_arrow_is_seen():
    page = "```mermaid\nflowchart TD\n    a --> b\n    b --> c\n```\n"
    assert arrows_drawn(page) == {("a", "b"), ("b", "c")}
    assert followed({("a", "b"), ("b", "c")}) == {("a", "b"), ("b", "c"), ("a", "c")}
    both = {("door", "outside"), ("outside", "adjoint"), ("door", "adjoint")}
    assert without_shortcuts(both) == both - {("door", "adjoint")}
