# SPDX-License-Identifier: MIT
"""Manifests, indexes and configurations that others wrote: read within bounds, or refused by one sentence."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from composeapps.errors import ComposeAppsError, CorruptError, NotFoundError
from composeapps.oci import documents
from composeapps.oci.digests import sha256
from composeapps.oci.documents import parse_config, parse_document
from composeapps.oci.parsing import MAX_VALUES, dump_json, parse_json, parse_size
from composeapps.oci.platforms import Platform
from support import images

DIGEST = sha256(b"x")
BLOB = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": DIGEST, "size": 1}


def manifest(**changes):
    return dump_json({"schemaVersion": 2, "mediaType": documents.OCI_MANIFEST, "config": BLOB, "layers": [BLOB],
                      **changes})


def index(*entries, **changes):
    return dump_json({"schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": entries, **changes})


@pytest.mark.parametrize(("data", "says"), [
    (b"", "is not JSON"),
    (b"\xff\xfe{}", "UTF-8"),
    (b"[]", "not a JSON object"),
    (b'{"a":1,"a":2}', "the key 'a' is given twice"),
    (b'{"\x1b]0;x\\u0007":1,"\x1b]0;x\\u0007":2}', "is not JSON: Invalid control"),
    (b'{"\\u001b[2J":1,"\\u001b[2J":2}', r"the key '\\x1b\[2J' is given twice"),
    (b'{"a":NaN}', "NaN is not a number"),
    (b'{"a":-Infinity}', "-Infinity is not a number"),
    (b'{"a":' + b"9" * 5000 + b"}", "a number of 5000 digits"),
    (b'{"a":"\\ud800"}', "UTF-8"),
    (b'{"a":' + b"[" * 50000 + b"]" * 50000 + b"}", "nested too deeply"),
    (b'{"a":[' + b",".join([b"{}"] * MAX_VALUES) + b"]}", "values allowed"),
    (b'{"a":"' + b"x" * documents.MAX_DOCUMENT + b'"}', "bytes, more than"),
])
def test_json_that_is_refused(data, says):
    with pytest.raises(CorruptError, match=says) as caught:
        parse_json(data, "the answer")
    assert str(caught.value).isprintable()


def test_json_that_is_plain():
    assert parse_json('{"b":[1,-2,3.5,null,{"a":"ü\\u00fc\\ud83d\\ude00"}]}'.encode(), "it")["b"][4] == {"a": "üü😀"}


def test_a_text_may_hold_a_document_of_its_own():
    inner = json.dumps([{"name": "a", "version": "1"}] * (MAX_VALUES // 2))
    assert parse_json(dump_json({"label": inner}), "it") == {"label": inner}


@pytest.mark.parametrize("text", [
    b'{"a":"' + b'\\"' * 1_000_000, b'{"a":' + b'"' * 1_000_000, b'["\\' * 500_000 + b"\\"])
def test_texts_without_an_end_take_no_time(text):
    # What takes the square of this does not come to an end in any test's time.
    with pytest.raises(CorruptError):
        parse_json(text + b"," * MAX_VALUES, "it")


@pytest.mark.parametrize(("value", "size"), [
    (0, 0), ("17", 17), (2**63 - 1, 2**63 - 1), (2**63, None), (-1, None), (1.0, None), (True, None), (None, None),
    ("1e3", None), ("٣", None), ("-1", None), ("9" * 30, None), ("", None), ([], None),
])
def test_numbers_of_bytes(value, size):
    assert parse_size(value) == size


@pytest.mark.parametrize(("data", "says"), [
    (manifest(layers={}), "no list 'layers'"),
    (manifest(layers=[3]), "a descriptor is not an object"),
    (manifest(layers=[{**BLOB, "digest": "md5:0"}]), "no sha256 digest"),
    (manifest(layers=[{**BLOB, "digest": [DIGEST]}]), "no sha256 digest"),
    (manifest(layers=[{**BLOB, "size": "1"}]), "has no size"),
    (manifest(layers=[{**BLOB, "size": 1e3}]), "has no size"),
    (manifest(layers=[{**BLOB, "size": 2**64}]), "digits|has no size"),
    (manifest(layers=[{**BLOB, "mediaType": "a\nb"}]), "a media type that is none"),
    (manifest(layers=[{**BLOB, "mediaType": 3}]), "a media type that is none"),
    (manifest(layers=[BLOB] * 1001), "lists 1001 layers, more than the 1000 allowed"),
    (manifest(config=None), "not an object"),
    (manifest(mediaType={"a": 1}), "no text"),
    (manifest(mediaType="text/\x1b[2J"), r"media type 'text/\\x1b\[2J'"),
    (manifest(schemaVersion=1), "schema version 2"),
    (manifest(schemaVersion=[2]), "schema version 2"),
    (index({**BLOB, "platform": {"os": 3}}), "words that are none"),
    (index({**BLOB, "platform": {"os": "linux\x07"}}), "words that are none"),
    (index(*[BLOB] * 1001), "lists 1001 manifests"),
])
def test_documents_that_are_refused(data, says):
    with pytest.raises(CorruptError, match=says) as caught:
        parse_document(data, "image x")
    assert str(caught.value).isprintable()


def test_an_image_without_layers_is_one():
    assert parse_document(manifest(layers=None), "it").layers == ()


def test_remarks_of_odd_types_are_left_out():
    layer = {**BLOB, "annotations": {"a": "b", "c": 3, "d": {}}, "urls": ["https://a", 3]}
    found = parse_document(manifest(layers=[layer], annotations=[1]), "it")
    assert found.layers[0].annotations == {"a": "b"} and found.layers[0].urls == ("https://a",)
    assert found.annotations == {}


def entry(text, number):
    os_, architecture, *variant = text.split("/")
    return {**BLOB, "digest": sha256(str(number).encode()),
            "platform": {"os": os_, "architecture": architecture, "variant": "".join(variant)}}


def test_an_index_gives_the_best_and_prefers_what_is_at_hand():
    texts = ("windows/amd64", "unknown/unknown", "linux/amd64", "linux/amd64/v2", "linux/arm64/v8")
    found = parse_document(index(BLOB, *(entry(text, n) for n, text in enumerate(texts))), "it")
    machine = Platform.parse("linux/amd64/v3")
    assert str(found.select(machine, "it").platform) == "linux/amd64/v2"
    plain = sha256(b"2")
    assert found.select(machine, "it", lambda digest: digest == plain).digest == plain
    with pytest.raises(NotFoundError, match="it has: windows/amd64, linux/amd64, linux/amd64/v2, linux/arm64/v8"):
        found.select(Platform.parse("linux/riscv64"), "image x")


def test_a_configuration():
    data = dump_json({"os": "linux", "architecture": "arm", "variant": "v7", "rootfs": {"diff_ids": [DIGEST]},
                      "config": {"Labels": {"a": "b", "c": 1}}})
    assert parse_config(data, "it") == (Platform("linux", "arm", "v7"), (DIGEST,), {"a": "b"})
    assert parse_config(b'{"config":null,"rootfs":3}', "it").diff_ids == ()


@pytest.mark.parametrize("diff_ids", [[1], ["sha256:0"], {"a": 1}, "x", [DIGEST] * 1001])
def test_a_configuration_whose_layers_have_no_contents(diff_ids):
    with pytest.raises(CorruptError, match="rootfs.diff_ids"):
        parse_config(dump_json({"rootfs": {"diff_ids": diff_ids}}), "config x")


def test_what_is_damaged_yields_what_is_whole():
    value = {"layers": [BLOB, 3, {"digest": DIGEST}, {**BLOB, "annotations": [1], "platform": 3}]}
    assert [d.size for d in documents.known_descriptors(value, "layers")] == [1, 1]
    assert documents.known_descriptors({"layers": {"a": 1}}, "layers") == documents.known_descriptors([], "x") == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["digest", "size", "mediaType", "platform", "os", "architecture", "annotations", "urls",
                         "diff_ids", "rootfs", "Labels"]) | st.text(max_size=3), inner, max_size=6), max_leaves=20)
KEYS = ("schemaVersion", "mediaType", "config", "layers", "manifests", "annotations", "artifactType", "rootfs", "os",
        "architecture", "variant")


@settings(max_examples=400, deadline=None)
@given(base=st.sampled_from([json.loads(manifest()), json.loads(index(entry("linux/arm/v7", 1)))]),
       changes=st.dictionaries(st.sampled_from(KEYS), json_values, max_size=3), bare=json_values)
def test_no_document_brings_down_a_parser(base, changes, bare):
    for value in ({**base, **changes}, bare):
        for parse in (parse_document, parse_config):
            try:
                found = parse(json.dumps(value).encode(), "it")
            except ComposeAppsError as err:
                assert str(err).isprintable() and len(str(err)) < 500
            else:
                hash(found.digest if parse is parse_document else found.diff_ids)


HOSTILE = r"""
import re, time
from composeapps.errors import CorruptError
from composeapps.oci.documents import MAX_DOCUMENT, parse_config, parse_document
half = MAX_DOCUMENT // 2
bodies = [lambda: b'{"a":[' + b"{}," * (half // 2) + b"{}]}",
          lambda: b'{"a":"' + b"\\u00e9" * (half // 4) + b'\xf0\x9f\x98\x80"}',
          lambda: b'{"a":' + b"[" * half + b"}", lambda: b'{"a":' + b"1" * half + b"}",
          lambda: b'{"a":[' + b'"",' * half + b'""]}',
          lambda: b"{" + b",".join(b'"%d":{"b":1}' % n for n in range(49000)) + b"}"]
for make in bodies:
    body = make()
    for parse in (parse_document, parse_config):
        try:
            parse(body, "it")
        except CorruptError:
            pass
print(re.search("VmHWM:\s*(\d+)", open("/proc/self/status").read())[1], time.process_time())
"""


def test_hostile_bodies_take_little_memory_and_time():
    done = subprocess.run([sys.executable, "-c", HOSTILE], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": ":".join(sys.path)})
    memory, seconds = map(float, done.stdout.split())
    assert memory < 64 * 1024 and seconds < 5


def test_the_synthetic_images_are_read():
    made = images.multi_platform()
    found = parse_document(made.content, "it")
    assert found.kind == "index" and [str(m.platform) for m in found.manifests] == ["linux/amd64", "linux/arm64"]
