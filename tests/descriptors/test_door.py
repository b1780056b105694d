"""The door lets in good documents only: whatever else comes, it answers with a DocumentError, soon."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from descriptors.application import Application
from descriptors.documents import MAX_BYTES, DocumentError, Form, dump, load
from descriptors.problems import MAX_PROBLEMS
from descriptors.sla import Offer
from tests.descriptors.strategies import DOCUMENTS as STRATEGIES

NS = 'xmlns="urn:cloud-agency:documents:1"'
REFUSAL = f'<refusal {NS} call="c" vendor="v"><reason code="busy">full</reason></refusal>'
APPLICATION = f"""<application {NS} name="guestbook">
  <resources>
    <resource name="machine" type="COMPUTE" cores="2"/>
  </resources>
  <tiers>
    <tier name="web">
      <component name="app" resource="machine">
        <command phase="start">python app.py</command>
      </component>
    </tier>
  </tiers>
</application>
"""
YAML = dump(load(APPLICATION), Form.YAML)
JSON = dump(load(APPLICATION), Form.JSON)

BILLION_LAUGHS = """<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><refusal>&c;</refusal>"""
EXTERNAL = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><refusal>&e;</refusal>'
YAML_LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
XI = 'xmlns:xi="http://www.w3.org/2001/XInclude"'


def refused(source: bytes | str | Path, form: Form | None = None) -> str:
    """The words with which the door refuses; every one of them names the source and, for text, the place."""
    with pytest.raises(DocumentError) as caught:
        load(source, form=form, name="doc")
    assert 1 <= len(caught.value.problems) <= MAX_PROBLEMS
    for problem in caught.value.problems:
        assert problem.file == (str(source) if isinstance(source, Path) else "doc")
        assert isinstance(source, Path) or (problem.line >= 1 and problem.column >= 1)
        assert problem.message
    return str(caught.value)


ATTACKS: dict[str, tuple[bytes | str, str]] = {
    "external entity": (EXTERNAL, "a DOCTYPE (x) is not allowed"),
    "billion laughs": (BILLION_LAUGHS, "a DOCTYPE (lolz) is not allowed"),
    "external DTD": (f'<!DOCTYPE refusal SYSTEM "http://127.0.0.1:9/x.dtd">{REFUSAL}', "a DOCTYPE"),
    "undefined entity": (REFUSAL.replace("full", "&e;"), "not well-formed XML: undefined entity"),
    "billion laughs in YAML": (YAML_LAUGHS, "doc:1:4: document: anchors and aliases"),
    "YAML alias": (YAML.replace("name: web", "name: *web"), "anchors and aliases"),
    "YAML tag": (YAML.replace("name: web", "name: !!python/object:os.system x"), "tags (tag:yaml.org"),
    "YAML merge": (YAML + "<<: {name: x}\n", "unknown key '<<'"),
    "two YAML documents": (YAML + "---\n" + YAML, "a second YAML document"),
    "YAML key as list": ("document: application\n? [a]\n: b\n", "a mapping or list as a key"),
    "YAML key twice": (YAML + "name: x\n", "the key 'name' is there twice; expected each key once"),
    "JSON key twice": (JSON.replace('"name": "web"', '"name": "web", "name": "x"'), "the key 'name' is there twice"),
    "JSON NaN": ('{"document": "offer", "version": NaN}', "doc:1:34: document: NaN is not allowed"),
    "JSON Infinity": ('{"document": "offer", "version": -Infinity}', "-Infinity is not allowed"),
    "JSON text after": (JSON + "x", "not JSON: Extra data"),
    "JSON list": ("[1]", "the document is no mapping"),
    "processing instruction": ('<?xml-stylesheet href="http://127.0.0.1:9/"?>' + REFUSAL, "<?xml-stylesheet?>"),
    "XInclude": (
        REFUSAL.replace("full", f'<xi:include {XI} href="file:///etc/passwd"/>'),
        "<include>: XInclude is not allowed",
    ),
    "schemaLocation": (
        REFUSAL.replace("<refusal", f'<refusal {XSI} xsi:schemaLocation="urn:x http://127.0.0.1:9/x.xsd"'),
        "{http://www.w3.org/2001/XMLSchema-instance}schemaLocation is not allowed",
    ),
    "xml:base": (REFUSAL.replace("<refusal", '<refusal xml:base="http://127.0.0.1:9/"'), "base is not allowed"),
    "wrong root": (f"<refusel {NS}/>", "unknown document 'refusel': did you mean 'refusal'?"),
    "wrong namespace": (
        REFUSAL.replace("documents:1", "documents:2"),
        "wrong namespace 'urn:cloud-agency:documents:2'",
    ),
    "no namespace": ("<refusal/>", "wrong namespace None; expected xmlns="),
    "inner namespace": (REFUSAL.replace("<reason", '<reason xmlns="urn:x"'), "<reason>: wrong namespace 'urn:x'"),
    "truncated XML": (REFUSAL[:-5], "not well-formed XML"),
    "truncated JSON": (JSON[:-5], "not JSON"),
    "truncated YAML": ('document: "offer', "not YAML"),
    "YAML control character": ("document: \x01", "not YAML: control characters"),
    "declared Latin-1": ('<?xml version="1.0" encoding="ISO-8859-1"?>' + REFUSAL, "the encoding 'ISO-8859-1'"),
    "UTF-16": (REFUSAL.encode("utf-16"), "the text is not UTF-8"),
    "UTF-16 without mark": (REFUSAL.encode("utf-16-le"), "a NUL character (is it UTF-16?)"),
    "Latin-1": ("document: é".encode("latin-1"), "doc:1:11: the text is not UTF-8"),
    "half a surrogate": ("document: \ud800", "doc:1:11: the text is not UTF-8"),
    "half a surrogate in JSON": ('{"document": "\\ud800", "\\udfff": 1}', "unknown document"),
    "NUL": (YAML.replace("web", "w\0b"), "a NUL character"),
    "binary": (bytes(range(128, 256)) * 10, "the text is not UTF-8"),
    "empty": ("", "the document is empty"),
    "blank": (b"\xef\xbb\xbf \n\t", "the document is empty"),
    "only a comment": ("# nothing\n", "the document is empty"),
    "no document key": ("name: x\n", "the key 'document' is missing; expected document: one of acceptance, agreement"),
    "unknown document": ("document: ofer\n", "unknown document 'ofer': did you mean 'offer'?"),
    "document is a list": ("document: []\n", "unknown document"),
    "4 MiB and 1": (REFUSAL + " " * (MAX_BYTES + 1 - len(REFUSAL)), f"larger than {MAX_BYTES} bytes"),
    "10 MB": (b"x" * 10_000_000, f"larger than {MAX_BYTES} bytes"),
    "101 levels of XML": ("<a>" * 101 + "</a>" * 101, "doc:1:301: <a>: more than 100 levels"),
    "101 levels of YAML": ("[" * 101 + "]" * 101, "more than 100 levels"),
    "101 levels of YAML blocks": ("\n".join(" " * n + "-" for n in range(102)), "more than 100 levels"),
    "101 levels of JSON": ('{"a":' * 101 + "1" + "}" * 101, "more than 100 levels"),
    "deep JSON": ('{"a":' + "[" * 1_000_000, "more than 100 levels"),
    "too many elements": (
        f"<refusal {NS}>" + "<reason/>" * 10_001 + "</refusal>",
        "more than 10000 elements or",
    ),
    "too many entries": ('{"a": [' + "1," * 10_000 + "1]}", "more than 10000 entries"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_refused(attack: str) -> None:
    """Each attack is refused with words that say what it was."""
    source, words = ATTACKS[attack]
    assert words in refused(source)


@pytest.mark.parametrize("text", [APPLICATION, YAML, JSON])
def test_limits_are_generous_up_to_the_byte(text: str) -> None:
    """A document of exactly 4 MiB is let in."""
    assert load(text + " " * (MAX_BYTES - len(text.encode()))) == load(APPLICATION)


def test_100_levels_are_no_reason_to_refuse() -> None:
    """The hundredth level is refused for what it says, not for its depth."""
    assert "levels" not in refused("<a>" * 100 + "</a>" * 100)
    assert "levels" not in refused('{"a":' * 100 + "1" + "}" * 100)
    assert "levels" not in refused("[" * 100 + "]" * 100, Form.YAML)


FLOODS = {
    "XML elements": f"<refusal {NS}>" + ("<a>" + "<b/>" * 9000 + "</a>") * 20 + "</refusal>",
    "bad values": APPLICATION.replace(
        "</resources>", '<resource name="a" type="COMPUTE" cores="1_0"/>' * 9000 + "</resources>"
    ),
    "no attributes": APPLICATION.replace("</resources>", "<resource/>" * 9000 + "</resources>"),
    "attributes": f"<refusal {NS} " + " ".join(f"a{n}='1'" for n in range(300_000)) + "/>",
    "JSON quotes": '{"a": "' + '\\"' * 2_000_000,
    "JSON numbers": '{"a": ' + "1" * 4_000_000 + "}",
    "JSON brackets": "{" + "[],]" * 200_000,
    "YAML lines": "- a\n" * 1_000_000,
    "YAML quotes": "'" * 4_000_000,
    "YAML flow": "[" + "{a: " * 1_000_000,
    "YAML questions": "? " * 2_000_000,
    "YAML indents": "".join(" " * (n % 90) + "a:\n" for n in range(80_000)),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_flood_is_refused_soon(flood: str) -> None:
    """A document that is bad over and over is refused within seconds, with at most 20 problems."""
    began = time.monotonic()
    refused(FLOODS[flood][:MAX_BYTES])
    assert time.monotonic() - began < 15


def test_files_that_are_none(tmp_path: Path) -> None:
    """A missing file, a directory, a FIFO and a device are refused at once, without waiting."""
    os.mkfifo(tmp_path / "fifo.xml")
    (tmp_path / "big.xml").write_bytes(b" " * 10_000_000)
    assert "cannot be read: No such file" in refused(tmp_path / "none.xml")
    assert "not a regular file" in refused(tmp_path)
    assert "not a regular file" in refused(tmp_path / "fifo.xml")
    assert "not a regular file" in refused(Path("/dev/zero"))
    assert "cannot be read" in refused(Path("a\0b"))
    assert "larger than" in refused(tmp_path / "big.xml")


def test_the_suffix_decides(tmp_path: Path) -> None:
    """A file that is not what its suffix says is refused: guessing would let one file mean two things."""
    (tmp_path / "x.json").write_text(APPLICATION, encoding="utf-8")
    assert "not JSON" in refused(tmp_path / "x.json")


def test_expecting_another_document() -> None:
    """A document of another kind than expected is refused by name."""
    assert load(APPLICATION, expect=Application).name == "guestbook"
    for text in (APPLICATION, YAML, JSON):
        with pytest.raises(DocumentError, match="the document is 'application'; expected 'offer'"):
            load(text, expect=Offer)


WORDS = {
    "negative cores": ('cores="2"', 'cores="-2"', "doc:3:5: <resource>: cores must be greater than 0 (found '-2')"),
    "unknown type": (
        '"COMPUTE"',
        '"COMPUT"',
        "doc:3:5: <resource>: type 'COMPUT' is not known: did you mean 'COMPUTE'?; expected one of COMPUTE, STORAGE",
    ),
    "depends on itself": (
        "<command",
        "<depends_on>app</depends_on><command",
        "doc:7:7: <component>: component 'app' depends on itself: remove it from its depends_on",
    ),
    "depends on nothing": (
        "<command",
        "<depends_on>db</depends_on><command",
        "doc:8:9: <depends_on>: component 'app' depends on 'db', which is no component",
    ),
    "uses nothing": ('resource="machine"', 'resource="m"', "doc:7:7: <component>: component 'app' uses 'm'"),
    "wrong element": (
        "</command>",
        "</command><rewriet/>",
        "doc:8:55: <rewriet>: unknown element 'rewriet': did you mean 'rewrite'?; expected one of bucket, command",
    ),
    "wrong attribute": ('name="web"', 'nam="web"', "doc:6:5: <tier>: unknown attribute 'nam': did you mean 'name'?"),
    "missing attribute": (
        'name="web"',
        "",
        "doc:6:5: <tier>: attribute 'name' is missing; expected lower-case letters, digits and inner hyphens",
    ),
    "missing element": ("tiers>", "tears>", "doc:1:1: <application>: element <tiers> is missing"),
    "wrong name": ('"web"', '"Web"', "doc:6:5: <tier>: name is not valid (found 'Web'); expected lower-case letters"),
    "order": (
        "<command",
        '<file source="a" target="a"/><command',
        "",
    ),
    "disorder": (
        "</command>",
        '</command><file source="a" target="a"/>',
        "doc:8:55: <file>: <file> is out of place; expected one of <command>, <rewrite>, <health>, <content>",
    ),
    "twice": ("<tiers>", "<tiers/><tiers>", "doc:5:11: <tiers>: <tiers> is there twice; expected it once"),
    "stray text": (
        "<tiers>",
        "<tiers>hm",
        "doc:5:3: <tiers>: text is not allowed here (found 'hm'); expected elements",
    ),
    "odd number": (
        'cores="2"',
        'cores="1_6"',
        "doc:3:5: <resource>: cores is not valid (found '1_6'); expected the form",
    ),
    "number in words": ('cores="2"', 'cores="two"', "cores is not valid (found 'two'); expected a whole number"),
    "no command": ("python app.py", " ", "doc:8:9: <command>: the text must have at least 1 character(s)"),
}


@pytest.mark.parametrize("case", WORDS)
def test_xml_errors_in_words(case: str) -> None:
    """An XML error names line, column and element, what was found and what was expected."""
    old, new, words = WORDS[case]
    text = APPLICATION.replace(old, new)
    if words:
        assert words in refused(text)
    else:
        assert load(text)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("cores: 2", "cores: -2", "doc:9:3: resources[0]: cores must be greater than 0 (found '-2')"),
        (
            "cores: 2",
            "core: 2",
            "doc:9:3: resources[0]: unknown key 'core': did you mean 'cores'?; expected one of agr",
        ),
        (
            "cores: 2",
            "cores: []",
            "doc:9:3: resources[0].cores: cores is not valid (found a list); expected a whole num",
        ),
        (
            "phase: start",
            "phase: Start",
            "doc:17:7: tiers[0].components[0].commands[0]: phase 'Start' is not known: did",
        ),
        (
            "type: COMPUTE",
            "",
            "doc:7:3: resources[0]: key 'type' is missing; expected one of COMPUTE, STORAGE, NETWORK",
        ),
        ("name: guestbook", "name: null", "doc:3:1: document: name is not valid (found None); expected text"),
        ("version: '1'", "version: 2", "doc:2:1: document: version '2' is not known; expected 1"),
    ],
)
def test_yaml_and_json_errors_in_words(old: str, new: str, words: str) -> None:
    """An error in YAML names line, column, path, what was found and what was expected; JSON says the same elsewhere."""
    assert words in refused(YAML.replace(old, new))


def test_json_errors_have_places() -> None:
    """An error in JSON names the line of the very value, tabs and escapes notwithstanding."""
    text = JSON.replace('"cores": 2', '"cores":\t-2').replace('"web"', '"\\u0041\\/"')
    assert "doc:12:7: resources[0]: cores must be greater than 0 (found '-2')" in refused(text)
    assert "doc:17:7: tiers[0]: name is not valid (found 'A/')" in refused(text)


def test_all_problems_at_once_but_not_too_many() -> None:
    """Every problem is told, in the order of the text, up to twenty."""
    text = APPLICATION.replace('cores="2"', 'cores="0" memory_mib="x" colour="red"').replace('"web"', '"W"')
    assert [line.split(": ")[0] for line in refused(text).splitlines()] == ["doc:3:5", "doc:3:5", "doc:3:5", "doc:6:5"]
    many = APPLICATION.replace("</resources>", "<resource/>" * 30 + "</resources>")
    assert len(refused(many).splitlines()) == MAX_PROBLEMS


@given(raw=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="replace")))
@pytest.mark.parametrize("form", [None, *Form])
def test_random_bytes_only_raise_document_error(raw: bytes, form: Form | None) -> None:
    """Whatever bytes come, the only exception is DocumentError."""
    refused(raw, form)


@pytest.mark.parametrize("form", Form)
@given(data=st.data())
def test_mutated_documents_load_or_raise_document_error(form: Form, data: st.DataObject) -> None:
    """A valid document with a part cut out, doubled or overwritten loads or is refused; nothing else happens."""
    document = data.draw(st.one_of(*STRATEGIES.values()))
    text = dump(document, form)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    patch = data.draw(
        st.sampled_from(["", text[start:end] * 2, "-", '"', "<", "{", "]", "9" * 30, "\ud800", "&#0;", ": "])
    )
    try:
        load(text[:start] + patch + text[end:], form=form)
    except DocumentError as error:
        str(error).encode()
