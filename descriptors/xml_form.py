"""Reading XML into plain data: two passes that resolve nothing, then a walk along the models.

The first pass (expat) refuses everything that reaches outside the text and notes where each element begins, which lxml
knows only by line. The second (lxml, hardened) gives the tree that the schemas validate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

from lxml import etree

from descriptors import schemas
from descriptors.base import NAMESPACE, Document, Element
from descriptors.layout import Place, Slot, slots
from descriptors.problems import MAX_PROBLEMS, Problem, found, refuse, unknown
from descriptors.reading import MAX_DEPTH, MAX_ENTRIES, Mark, Path, Reading

_XINCLUDE = "http://www.w3.org/2001/XInclude"
Place2D = tuple[int, int]
"""Line and column."""


@dataclass
class XmlReading(Reading):
    """A reading of XML; it keeps the tree, for the schema."""

    tag: str = ""
    root: etree._Element | None = None
    places: dict[etree._Element, Place2D] = field(default_factory=dict)
    file: str = ""

    def against_schema(self) -> list[Problem]:
        """What the document's XSD has against it: order and lexical form, where the models are more lenient."""
        assert self.root is not None  # noqa: S101 - `read_xml` sets it
        problems = []
        for path, message, expected in schemas.complaints(self.tag, self.root):
            element = self.root.getroottree().xpath(path)[0] if path else self.root
            problems.append(Problem(self.file, *self.places[element], f"<{_local(element.tag)}>", message, expected))
        return problems


def read_xml(text: str, file: str, documents: Mapping[str, type[Document]]) -> XmlReading:
    """Read XML whose root is one of ``documents``; :class:`DocumentError` when it is unsafe, broken or unknown."""
    scan = _Scan(file)
    scan.run(text)
    root = _parse(text, file)
    places = dict(zip(root.iter(etree.Element), scan.places, strict=True))
    tag = _local(root.tag)
    if root.tag != f"{{{NAMESPACE}}}{tag}":
        expected = f'xmlns="{NAMESPACE}"'
        refuse(file, *places[root], f"<{tag}>", f"wrong namespace {found(etree.QName(root).namespace)}", expected)
    if tag not in documents:
        refuse(file, *places[root], f"<{tag}>", *unknown("document", tag, documents))
    reading = XmlReading(tag=tag, root=root, places=places, file=file)
    reading.data = _Walk(reading).element(root, documents[tag], ())
    return reading


def read_foreign(text: str, file: str, namespace: str) -> etree._Element:
    """The tree of XML after another standard, as safe as ours, but that its attributes may have the standard's
    namespace; :class:`DocumentError` when it is unsafe or broken."""
    _Scan(file, namespace).run(text)
    return _parse(text, file)


def _local(tag: object) -> str:
    return str(tag).rpartition("}")[2]


def _parse(text: str, file: str) -> etree._Element:
    """The tree, from a parser that resolves no entity, loads no DTD and opens nothing."""
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
    )
    try:
        return etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as error:
        refuse(file, error.position[0] or 1, error.position[1] or 1, "", f"not well-formed XML: {error.msg}")


class _Scan:
    """The first pass. It refuses at once, so nothing dangerous reaches the second."""

    def __init__(self, file: str, attributes_of: str = "") -> None:
        """``attributes_of``: the one namespace that attributes may have, if any."""
        self.places: list[Place2D] = []
        """Where each element begins, in document order."""
        self._attributes_of = attributes_of
        self._file = file
        self._open: list[str] = []
        self._children = [0]
        self._parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.ProcessingInstructionHandler = self._instruction
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end

    def run(self, text: str) -> None:
        """Read it all; :class:`DocumentError` at the first thing that is not allowed."""
        try:
            self._parser.Parse(text, True)
        except expat.ExpatError as error:
            message = f"not well-formed XML: {expat.ErrorString(error.code)}"
            refuse(self._file, error.lineno, error.offset + 1, self._here, message)

    @property
    def _here(self) -> str:
        return f"<{self._open[-1]}>" if self._open else ""

    def _refuse(self, message: str, expected: str) -> None:
        refuse(
            self._file,
            self._parser.CurrentLineNumber,
            self._parser.CurrentColumnNumber + 1,
            self._here,
            message,
            expected,
        )

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding and encoding.lower() not in ("utf-8", "utf8"):
            self._refuse(f"the encoding {found(encoding)} is not allowed", "UTF-8")

    def _doctype(self, name: str, *_ids: object) -> None:
        self._refuse(f"a DOCTYPE ({name}) is not allowed", "a document without DTD and entities")

    def _instruction(self, target: str, _data: str) -> None:
        self._refuse(f"the processing instruction <?{target}?> is not allowed", "elements only")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        self.places.append((self._parser.CurrentLineNumber, self._parser.CurrentColumnNumber + 1))
        self._children[-1] += 1
        if max(self._children[-1], len(attributes)) > MAX_ENTRIES:
            self._refuse(f"more than {MAX_ENTRIES} elements or attributes in one element", "a smaller document")
        self._open.append(local)
        self._children.append(0)
        if len(self._open) > MAX_DEPTH:
            self._refuse(f"more than {MAX_DEPTH} levels", "a flatter document")
        if namespace == _XINCLUDE:
            self._refuse("XInclude is not allowed", "the content itself")
        for attribute in attributes:
            if " " in attribute and attribute.rpartition(" ")[0] != self._attributes_of:
                self._refuse(f"the attribute {_without_space(attribute)} is not allowed", "no reference to elsewhere")

    def _end(self, _name: str) -> None:
        self._open.pop()
        self._children.pop()


def _without_space(name: str) -> str:
    """expat's ``namespace local`` as ``{namespace}local``."""
    namespace, _, local = name.rpartition(" ")
    return f"{{{namespace}}}{local}"


class _Walk:
    """Turns elements into the data that their model validates; what has no place in the model is a problem."""

    def __init__(self, reading: XmlReading) -> None:
        self._reading = reading

    def element(self, element: etree._Element, model: type[Element], path: Path) -> dict[str, object]:
        """The element as the model's fields."""
        self._mark(path, element)
        data: dict[str, object] = {}
        self._attributes(element, {s.tag: s for s in slots(model) if s.place is Place.ATTRIBUTE}, path, data)
        text = next((s for s in slots(model) if s.place is Place.TEXT), None)
        if text:
            data[text.field] = element.text or ""
            self._mark((*path, text.field), element, "the text")
        else:
            self._no_text(element)
        self._children(element, {s.outer: s for s in slots(model) if s.place is Place.CHILD}, path, data)
        return data

    def _attributes(self, element: etree._Element, known: dict[str, Slot], path: Path, data: dict[str, object]) -> None:
        for name, value in element.attrib.items():
            if slot := known.get(str(name)):
                data[slot.field] = str(value)
                self._mark((*path, slot.field), element, slot.tag)
            else:
                self._unknown(element, "attribute", str(name), known)

    def _children(self, parent: etree._Element, known: dict[str, Slot], path: Path, data: dict[str, object]) -> None:
        for child in parent:
            slot = self._slot(child, known)
            if slot is None:
                continue
            place = (*path, slot.field)
            if slot.field in data and (slot.wrapper or not slot.many):
                self._problem(child, f"<{slot.outer}> is there twice", "it once")
            elif slot.wrapper:
                self._mark(place, child, f"<{slot.outer}>")
                data[slot.field] = self._wrapped(child, slot, place)
            elif slot.many:
                values = data.setdefault(slot.field, [])
                assert isinstance(values, list)  # noqa: S101 - this is the only place that fills it
                values.append(self._child(child, slot, (*place, len(values))))
            else:
                data[slot.field] = self._child(child, slot, place)

    def _wrapped(self, wrapper: etree._Element, slot: Slot, path: Path) -> list[object]:
        self._attributes(wrapper, {}, path, {})
        self._no_text(wrapper)
        known = {slot.tag: slot}
        children = [child for child in wrapper if self._slot(child, known)]
        return [self._child(child, slot, (*path, index)) for index, child in enumerate(children)]

    def _child(self, child: etree._Element, slot: Slot, path: Path) -> object:
        if slot.model:
            return self.element(child, slot.model, path)
        self._mark(path, child, "the text")
        self._attributes(child, {}, path, {})
        self._children(child, {}, path, {})
        return child.text or ""

    def _slot(self, child: etree._Element, known: dict[str, Slot]) -> Slot | None:
        tag = _local(child.tag)
        if child.tag != f"{{{NAMESPACE}}}{tag}":
            namespace = found(etree.QName(child).namespace)
            self._problem(child, f"wrong namespace {namespace}", f'xmlns="{NAMESPACE}"')
            return None
        if tag not in known:
            self._unknown(child, "element", tag, known)
        return known.get(tag)

    def _no_text(self, element: etree._Element) -> None:
        text = " ".join(filter(None, [element.text, *(child.tail for child in element)])).strip()
        if text:
            self._problem(element, f"text is not allowed here (found {found(text)})", "elements only")

    def _mark(self, path: Path, element: etree._Element, subject: str = "the value") -> None:
        line, column = self._reading.places[element]
        self._reading.marks[path] = Mark(line, column, f"<{_local(element.tag)}>", subject)

    def _unknown(self, element: etree._Element, what: str, name: str, known: Mapping[str, Slot]) -> None:
        if len(self._reading.problems) < MAX_PROBLEMS:  # looking for a suggestion takes time
            self._problem(element, *unknown(what, name, known))

    def _problem(self, element: etree._Element, message: str, expected: str) -> None:
        place = self._reading.places[element]
        name = f"<{_local(element.tag)}>"
        self._reading.problems.append(Problem(self._reading.file, *place, name, message, expected))
