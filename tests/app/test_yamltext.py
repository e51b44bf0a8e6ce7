# SPDX-License-Identifier: MIT
"""Texts of compose files: read as docker compose reads them, within bounds, and refused with their line."""

import json
import subprocess
import sys
import textwrap

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from composeapps.app import compose, pinning, yamltext
from composeapps.errors import CorruptError, UsageError

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2**63, 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20), inner, max_size=4), max_leaves=20)


def one(text, **options):
    (value,) = yamltext.read(text if isinstance(text, bytes) else text.encode(), "it", **options)
    return value


@given(ANYTHING)
@settings(max_examples=150)
def test_what_is_written_reads_the_same_as_json_and_as_yaml(value):
    text = pinning.dump({"x": value})
    assert one(text) == {"x": value}
    # A space makes it YAML, which is read the other way.
    assert one(b" " + text) == {"x": value}


@pytest.mark.parametrize(("text", "says"), [
    ("a: 1\nb: {c: 1, d: 2,\n c: 3}", "line 3: the key 'c' was given at line 2 already"),
    ("a: &x {p: 1}\nb:\n  <<: *x\n  q: 1\n  <<: *x", "line 5: the key '<<' was given at line 3 already"),
    ('{"a": {"b": 1,\n "b": 2}}', "line 2: the key 'b' was given at line 1 already"),
    ("a: &x\n  b:\n    - *x", "line 3: the alias '*x' stands for something that it is in itself"),
    ("a: [1,\n *gone]", "line 2: the alias '*gone' stands for nothing"),
    ("a:\n  3.5: b", "line 2: a key has to be a text, and this is 3.5: put it in quotes"),
    ("a:\n  null: b", "line 2: a key has to be a text, and this is null"),
    ("a:\n  [x]: b", "line 2: a key has to be a text, and this is a mapping or a list"),
    ("a:\n  <<: [{b: 1}, c]", "line 2: '<<' takes a mapping or a list of mappings"),
    ("a:\n  - !!bool maybe", "line 2: 'maybe' is no !!bool"),
    ("a:\n  - !!binary '*'", "line 2: a !!binary that is no text in base64"),
    ("a: 1\nb: \x07", "line 2: not YAML: control characters are not allowed"),
    (b"a: 1\nb: \xe9t\xe9", "line 2: not YAML: invalid trailing UTF-8 octet"),
    ("a:\n\tb: 1", "line 2: not YAML"),
    ("- " * 101 + "x", "line 1: nested more than 100 deep"),
    ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 120)), "nested more than 100 deep"),
    ('{"a": "\\ud834"}', "line 1: not YAML"),
    ("[" * 200_000, "it, line 1: "),
    ('{"a":' * 150_000, "line 1: nested more than 100 deep"),
    ("x" * (yamltext.MAX_TEXT + 1), "it has 1048577 bytes, more than the 1048576 allowed"),
])
def test_what_is_refused_names_its_line(text, says):
    with pytest.raises(UsageError) as err:
        one(text)
    assert says in str(err.value) and "\n" not in str(err.value)


@pytest.mark.parametrize(("text", "says"), [
    ("a:\n  b: 1970-01-01", "line 2: docker compose takes 1970-01-01 for a time"),
    ("a:\n  b: !!timestamp 1970-1-1", "line 2: docker compose takes 1970-1-1 for a time"),
    ("a:\n  b: -.inf", "line 2: docker compose takes no -.inf"),
])
def test_what_docker_compose_does_not_hand_on_is_refused_in_a_source_only(text, says):
    with pytest.raises(UsageError) as err:
        one(text, source=True)
    assert says in str(err.value)
    assert set(one(text)) == {"a"}


def test_merge_keys():
    value = one("""
        base: &base {a: 1, b: {c: 1}}
        more: &more {<<: *base, a: 2}
        list: {<<: [{x: 1}, *more], b: null}
        text: {"<<": 1}
        """)
    assert value["more"] == {"a": 2, "b": {"c": 1}}
    assert value["list"] == {"b": None, "x": 1, "a": 2}
    assert value["text"] == {"<<": 1}
    value["more"]["b"]["c"] = 5
    assert value["base"]["b"] == {"c": 1}, "what an alias stands for is a value of its own"


def test_tags_of_docker_compose():
    text = "a: !reset [1]\nb: !override {c: !reset null, d: 1}\ne: [!reset 1, 2]"
    assert one(text) == {"b": {"d": 1}, "e": [2]}
    value = one(text, source=True)
    assert value["a"] == ("!reset", [1], 1) and value["b"].value["c"] == ("!reset", None, 2)


def test_encodings_and_documents():
    for encoding in ("utf-8-sig", "utf-16"):
        assert one("a: é".encode(encoding)) == {"a": "é"}
    assert yamltext.read(b"a: 1\n---\n---\nb: &x 2\n", "it") == [{"a": 1}, None, {"b": 2}]
    assert yamltext.read(b"# nothing\n", "it") == []
    with pytest.raises(UsageError, match="stands for nothing"):
        yamltext.read(b"a: &x 1\n---\nb: *x\n", "it")


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
def test_both_of_pyyamls_parsers(monkeypatch, loader):
    if loader == "SafeLoader":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    text = "services:\n  a: {image: x, command: [é, '1', 1]}\n"
    assert one(text) == {"services": {"a": {"image": "x", "command": ["é", "1", 1]}}}
    for bad, says in (("a: 1\na: 2", "line 2: the key 'a'"), ("a: [", "not YAML"), ("a: \x07", "line 1: not YAML")):
        with pytest.raises(UsageError, match=says):
            one(bad)


@given(st.binary(max_size=200) | st.text(alphabet="ab:-?&*!<>[]{}\"'|%@#,~\n\t \\", max_size=60).map(str.encode))
@settings(max_examples=300)
def test_whatever_is_given_is_read_or_refused_in_a_sentence(data):
    for source in (False, True):
        try:
            yamltext.read(data, "it", source=source)
        except UsageError as err:
            assert str(err).startswith("it") and "\n" not in str(err)


def test_what_others_published_is_corrupt_and_not_a_traceback():
    for text in (b"a: &a [*a]", b"services: {a: }", b"services: {a: {image: 1}}", b"\xff", b"---\n---\n",
                 b"services: {a: {image: x, image: y}}", b"services: {1: {image: x}}"):
        with pytest.raises(CorruptError) as err:
            compose.services(text, "app x")
        assert "app x" in str(err.value) and "\n" not in str(err.value)


def _bombs():
    """Yield (name, text): what grows when it is read."""
    levels = "\n".join(f"l{n}: &l{n} [{','.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10))
    yield "lists", f"l0: &l0 [x,x,x,x,x,x,x,x,x,x]\n{levels}\n"
    levels = "\n".join(f"l{n}: &l{n} {{{', '.join(f'k{i}: *l{n - 1}' for i in range(10))}}}" for n in range(1, 10))
    yield "mappings", f"l0: &l0 {{a: b}}\n{levels}\n"
    levels = "\n".join(f"l{n}: &l{n}\n  <<: [{','.join([f'*l{n - 1}'] * 20)}]\n  k{n}: 1" for n in range(1, 10))
    yield "merges", f"l0: &l0 {{a: b}}\n{levels}\n"
    yield "texts", f"a: &a {'x' * 500_000}\nb: [{','.join(['*a'] * 100_000)}]\n"
    yield "values", f"a: [{'a,' * 500_000}]\n"
    yield "mappings of one", "a: [" + "{a: b}," * 149_000 + "]\n"
    yield "nesting", "[" * 1_000_000
    yield "indents", "- " * 500_000
    yield "questions", "? " * 500_000
    yield "braces", '{"a":' * 200_000
    yield "one line", "a: '" + "''" * 500_000 + "'"
    yield "keys", "a: {" + "".join(f"{n:x}: ," for n in range(100_000)) + "}"
    yield "colons", ": " * 500_000
    yield "anchors", "a: [" + "&a *a " * 150_000 + "]"
    yield "tags", "!" * 1_000_000
    yield "directives", "%A B\n" * 200_000
    yield "documents", "---\n" * 250_000
    yield "json", '{"a": [' + "[]," * 340_000 + "[]]}"


@pytest.mark.parametrize(("name", "text"), [pytest.param(*bomb, id=bomb[0]) for bomb in _bombs()])
def test_what_multiplies_stays_below_64_mib_and_5_seconds(tmp_path, name, text):
    (tmp_path / "text").write_text(text)
    program = textwrap.dedent("""
        import json, sys, time
        from composeapps.app import compose
        from composeapps.errors import CorruptError
        try:
            compose.services(open(sys.argv[1], "rb").read(), "it")
        except CorruptError as err:
            assert len(str(err)) < 500
        peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
        print(json.dumps([int(peak.split()[1]) / 1024, time.process_time()]))
        """)
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "text"], capture_output=True, text=True,
                          env={"PYTHONPATH": ":".join(sys.path)}, check=False)
    assert done.returncode == 0, done.stderr
    memory, seconds = json.loads(done.stdout)
    assert memory < 64 and seconds < 5, (name, memory, seconds)


def test_a_pinned_file_needs_no_yaml():
    program = textwrap.dedent("""
        import sys
        sys.modules["yaml"] = None
        from composeapps.app import compose
        digest = "sha256:" + "0" * 64
        text = '{"services": {"a": {"image": "hub.example.com/f/a@%s"}}}' % digest
        assert [each.name for each in compose.services(text.encode(), "it")] == ["a"]
        try:
            compose.services(b"services: {}", "it")
        except Exception as err:
            print(type(err).__name__, err)
        """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          env={"PYTHONPATH": ":".join(sys.path)}, check=True)
    assert done.stdout == ("ComposeAppsError the compose file of it is YAML, and PyYAML is not installed: "
                           "install python3-pyyaml\n")
