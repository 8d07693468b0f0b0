"""The drawings of the slides: one visual language, nothing from elsewhere, and what stays keeps its place."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest

from workshop import paths

FOLDER = paths.REPOSITORY / "slides" / "drawings"
FILES = sorted(FOLDER.glob("*.svg"))
STAGES = ["stage0", "stage1", "stage2"]
SVG = "{http://www.w3.org/2000/svg}"
WIDTH, HEIGHT = 1200, 560
SMALLEST_TEXT = 22  # units: a drawing is about as wide as its slide
LOWEST_CONTRAST = 4.5  # WCAG 2, level AA
# What loses a part from one stage to the next; the rest of it stays inside the place that it had.
SHRINKING = {"monolith", "parley"}
# Where the elements of these names lie, and how large they are, is told by these attributes.
GEOMETRY = {
    "rect": ("x", "y", "width", "height", "rx"),
    "use": ("href", "x", "y", "width", "height"),
    "text": ("x", "y"),
    "circle": ("cx", "cy", "r"),
    "path": ("d",),
}

each_drawing = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def read(file):
    return ElementTree.fromstring(file.read_text())  # noqa: S314 (our own file)


def style_of(file):
    return read(file).find(f"{SVG}style").text


def placed(drawing):
    """Return the elements that are drawn where they stand: not the definitions that others refer to."""
    definitions = set(drawing.find(f"{SVG}defs").iter())
    return [e for e in drawing.iter() if e not in definitions and e.tag.removeprefix(SVG) in GEOMETRY]


def geometry(element):
    name = element.tag.removeprefix(SVG)
    return name, *(element.get(attribute) for attribute in GEOMETRY[name])


def box(element):
    """Return left, top, right and bottom of an element, as far as its attributes tell; of a path, of its points."""
    name = element.tag.removeprefix(SVG)
    if name == "path":
        xs, ys = zip(*points(element.get("d")), strict=True)
        return min(xs), min(ys), max(xs), max(ys)
    if name == "circle":
        x, y, r = (float(element.get(attribute)) for attribute in ("cx", "cy", "r"))
        return x - r, y - r, x + r, y + r
    x, y, width, height = (float(element.get(attribute, 0)) for attribute in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def points(data):
    """Yield the points that a path passes, in the order of its commands; refuses those that no drawing uses."""
    x = y = 0.0
    for command, text in re.findall(r"([A-Za-z])([^A-Za-z]*)", data):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", text)]
        origin = (x, y) if command.islower() else (0.0, 0.0)
        match command.upper():
            case "M" | "L" | "A":  # of an arc, the end is what follows its five other numbers
                x, y = origin[0] + numbers[-2], origin[1] + numbers[-1]
            case "H":
                x = origin[0] + numbers[0]
            case "V":
                y = origin[1] + numbers[0]
            case "Z":
                continue
            case _:
                raise ValueError(f"{command} in {data!r}")
        yield x, y


def inside(inner, outer):
    return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def test_there_is_a_drawing_of_each_stage():
    assert set(STAGES) <= {file.stem for file in FILES}


@each_drawing
def test_a_drawing_fills_its_slide_and_says_in_words_what_it_shows(file):
    drawing = read(file)
    assert drawing.get("viewBox") == f"0 0 {WIDTH} {HEIGHT}"
    assert drawing.get("role") == "img"
    title, desc = (drawing.find(f"{SVG}{name}") for name in ("title", "desc"))
    assert drawing.get("aria-labelledby") == f"{title.get('id')} {desc.get('id')}"
    assert title.text.strip()
    assert len(desc.text.split()) >= 10


@each_drawing
def test_all_drawings_have_the_same_style(file):
    assert style_of(file) == style_of(FILES[0])


@each_drawing
def test_a_drawing_is_styled_by_the_classes_of_the_style_and_by_nothing_else(file):
    known = set(re.findall(r"\.([a-z]+)[ ,.]", style_of(file)))
    for element in read(file).iter():
        assert set(element.get("class", "").split()) <= known, element.attrib
        assert not {"style", "fill", "stroke", "font-size", "font-family", "transform"} & set(element.attrib)


@each_drawing
def test_a_drawing_refers_to_nothing_outside_itself(file):
    drawing = read(file)
    ids = [element.get("id") for element in drawing.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    references = [element.get("href") for element in drawing.iter() if "href" in element.attrib]
    references += re.findall(r"url\(([^)]*)\)", file.read_text())
    assert {reference.removeprefix("#") for reference in references} <= set(ids)
    assert all(reference.startswith("#") for reference in references)
    assert not re.search(r"@import|@font-face|<script|<image|<foreignObject|xlink|data:", file.read_text())
    assert re.findall(r"\w+://[^\"]*", file.read_text()) == ["http://www.w3.org/2000/svg"]


@each_drawing
def test_no_text_is_too_small_to_be_read_from_the_last_row(file):
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", file.read_text())]
    assert len(sizes) == file.read_text().count("font-size")
    assert min(sizes) >= SMALLEST_TEXT


@each_drawing
def test_nothing_lies_outside_the_drawing(file):
    for element in placed(read(file)):
        assert inside(box(element), (0, 0, WIDTH, HEIGHT)), element.attrib


def luminance(colour):
    """Return the relative luminance of `#rrggbb`, as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_text_can_be_read_on_every_colour_in_light_in_dark_and_printed():
    light, dark, printed = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        for block in re.findall(r"svg \{(.*?)\}", style_of(FILES[0]), re.DOTALL)
    )
    assert printed == light
    assert light.keys() == dark.keys()
    for colours, page in ((light, "#ffffff"), (dark, "#1e1e1e")):
        edges = {name for name in colours if name.endswith("-edge")}
        behind = {page} | {colours[edge.removesuffix("-edge")] for edge in edges}
        for text, below in itertools.product(("text", "quiet"), behind):
            assert contrast(colours[text], below) >= LOWEST_CONTRAST, (text, below)


@pytest.mark.parametrize(("before", "after"), list(itertools.combinations(STAGES, 2)))
def test_what_is_in_two_stages_has_the_same_place_in_both(before, after):
    first, second = (
        {element.get("id"): element for element in placed(read(FOLDER / f"{name}.svg")) if "id" in element.attrib}
        for name in (before, after)
    )
    both = first.keys() & second.keys()
    assert {"haproxy", "ui", "tokens", "users", "messages", "socketio", "redis", "celery"} <= both
    for name in both - SHRINKING:
        assert geometry(first[name]) == geometry(second[name])
    for name in both & SHRINKING:
        assert inside(box(second[name]), box(first[name]))
