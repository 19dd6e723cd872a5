"""A figure as SVG that a page can hold inline, in light and dark, and as PNG for a slide."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from xml.etree import ElementTree as ET

from matplotlib.figure import Figure

from sweeps.figures.style import DARK, STYLE

DOTS_AN_INCH = 150
# The letters that a page reads these colours by: --c0 is the first of DARK, and so on.
VARIABLES = {light: f"--c{place}" for place, light in enumerate(DARK)}

_NO_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_REFERENCE = re.compile(r"^(?:url\()?#([^)]+)\)?$")
_COLOURS = re.compile(r"(?<=: )#[0-9a-f]{6}")
_FONTS = re.compile(r"font-family: [^;]*; ?")
_ENCLOSED = "data:image/png;base64,"


@STYLE
def svg(figure: Figure) -> str:
    """Return a figure as SVG: equal for equal figures, on its own or inline in a page.

    Text stays text, black is currentColor and the other colours are variables with a fallback;
    there is no script, no style sheet, no metadata, nothing to load, and no identifier that another
    figure has.
    """
    sink = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that matplotlib's font has not; browsers do
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
    text = _NO_XML.sub("?", sink.getvalue())  # a name's control codes
    root = ET.fromstring(text)  # noqa: S314 - written a line above
    for element in root.findall(f"{_SVG}metadata"):
        root.remove(element)
    for parent in root.findall(f".//{_SVG}style/.."):
        parent.clear()  # its rule for `*` would reach the whole page
    _rename(root, f"f{hashlib.sha256(sink.getvalue().encode()).hexdigest()[:10]}")
    for element in root.iter():
        exact = {"transform"} if element.tag == f"{_SVG}image" else set()
        for name in ({"d", "x", "y", "transform"} - exact) & set(element.attrib):
            element.set(name, _shorter(name, element.attrib[name]))
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        if "style" in element.attrib:
            element.set("style", _restyled(element.attrib["style"]))
    _share_styles(root)
    root.attrib.pop("version")
    size = {name: root.attrib[name].removesuffix("pt") for name in ("width", "height")}
    root.attrib.update(size | {"role": "img", "aria-label": str(figure.get_label())})
    root.attrib.update({"fill": "currentColor", "font-family": "system-ui, sans-serif"})
    ET.register_namespace("", _SVG[1:-1])
    return ET.tostring(root, encoding="unicode") + "\n"


def alone(picture: str) -> str:
    """Give a picture that no page surrounds its colours for light and dark."""
    light = f":root{{color-scheme:light dark;color:#1d1e21;{variables(dark=False)}}}"
    night = f"@media(prefers-color-scheme:dark){{:root{{color:#e6e6e8;{variables(dark=True)}}}}}"
    return picture.replace(">", f"><style>{light}{night}</style>", 1)


def variables(*, dark: bool) -> str:
    """Return the declarations of the colours that `svg` refers to."""
    chosen = {name: DARK[light] if dark else light for light, name in VARIABLES.items()}
    return "".join(f"{name}:{colour};" for name, colour in chosen.items())


@STYLE
def png(figure: Figure) -> bytes:
    """Return a figure as PNG on white, for slides and mails."""
    sink = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that matplotlib's font has not are boxes
        figure.savefig(
            sink,
            format="png",
            dpi=DOTS_AN_INCH,
            metadata={"Software": None},
            pil_kwargs={"compress_level": 2},  # a third of the time for a tenth of the size
        )
    return sink.getvalue()


def _restyled(text: str) -> str:
    def named(found: re.Match[str]) -> str:
        colour = found[0]
        if colour in VARIABLES:
            return f"var({VARIABLES[colour]},{colour})"
        return "currentColor" if colour == "#000000" else colour

    return _COLOURS.sub(named, _FONTS.sub("", text))


def _rename(root: ET.Element, prefix: str) -> None:
    """Keep the identifiers that something refers to, each as the prefix with a number."""
    text = [value for element in root.iter() for value in element.attrib.values()]
    used = {name for value in text for name in _REFERENCE.findall(value)}
    own = [element.get("id") for element in root.iter() if element.get("id") in used]
    names = {name: f"{prefix}-{place}" for place, name in enumerate(own)}
    for element in root.iter():
        link = element.attrib.pop(f"{_XLINK}href", None)
        if link is not None:
            element.set("href", link if link.startswith(_ENCLOSED) else f"#{names[link[1:]]}")
        if "clip-path" in element.attrib:
            (name,) = _REFERENCE.findall(element.attrib["clip-path"])
            element.set("clip-path", f"url(#{names[name]})")
        name = element.attrib.pop("id", None)
        if name in names:
            element.set("id", names[name])


def _share_styles(root: ET.Element) -> None:
    """Say the style of many equal marks once, in their group: half of a strip plot's size."""
    for group in root.iter(f"{_SVG}g"):
        marks = [mark for mark in group if mark.tag != f"{_SVG}defs"]
        style = marks[0].get("style") if marks else None
        alike = all(mark.tag == f"{_SVG}use" and mark.get("style") == style for mark in marks)
        if len(marks) > 1 and style and alike and "style" not in group.attrib:
            group.set("style", style)
            for mark in marks:
                del mark.attrib["style"]


def _shorter(name: str, text: str) -> str:
    """Return coordinates with two decimals, and of lines only the first `L`."""
    text = " ".join(_DECIMALS.sub(r"\1", text).split())
    if name == "d" and not set(text) & set("CQz"):
        start, line, rest = text.partition(" L ")
        text = start + line + rest.replace(" L ", " ") if " M " not in rest else text
    return text
