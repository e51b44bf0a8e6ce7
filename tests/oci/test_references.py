# SPDX-License-Identifier: MIT
"""References as users and compose files write them."""

import pytest

from composeapps.errors import UsageError
from composeapps.oci.reference import parse, parse_pinned

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "host", "path", "tag", "digest"),
    [
        ("nginx", "docker.io", "library/nginx", "", ""),
        ("nginx:1.25", "docker.io", "library/nginx", "1.25", ""),
        ("grafana/loki:2", "docker.io", "grafana/loki", "2", ""),
        ("localhost/x:y", "localhost", "x", "y", ""),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000", "a/b", "", ""),
        (f"hub.example.com/factory/web@{DIGEST}", "hub.example.com", "factory/web", "", DIGEST),
        (f"hub.example.com:8443/factory/web:v3@{DIGEST}", "hub.example.com:8443", "factory/web", "v3", DIGEST),
        ("[::1]:5000/a", "[::1]:5000", "a", "", ""),
    ],
)
def test_parts(text, host, path, tag, digest):
    ref = parse(text)
    assert (ref.host, ref.path, ref.tag, ref.digest) == (host, path, tag, digest)


@pytest.mark.parametrize("text", ["hub.example.com/factory/web:v1", f"hub.example.com/factory/a/b@{DIGEST}"])
def test_round_trip(text):
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [(f"hub.example.com/factory/web@{DIGEST}", "web"), (f"hub.example.com/factory/group/web@{DIGEST}", "group/web"),
     (f"hub.example.com/web@{DIGEST}", "web")],
)
def test_app_name_is_the_path_after_the_factory(text, name):
    assert parse(text).app_name == name


@pytest.mark.parametrize(
    "text",
    ["", "Hub.example.com/Factory/web", "hub.example.com/../etc/passwd", "hub.example.com//web", "a b",
     "hub.example.com/web:", "hub.example.com/web@sha256:12", "hub.example.com/web@md5:" + "a" * 64,
     "hub.example.com/web@" + DIGEST.upper(), "-x/y", "hub.example.com/web;rm", "http://hub.example.com/web"],
)
def test_malformed_is_refused_by_name(text):
    with pytest.raises(UsageError, match="image"):
        parse(text, what="image")


def test_a_pin_is_demanded():
    with pytest.raises(UsageError, match=r"has no digest: name it as docker.io/library/nginx@sha256"):
        parse_pinned("nginx:latest", version=False)
    # An app's version lies in its own registry: nobody means Docker Hub by a name alone.
    for text in ("web", "web:v3", "factory/web"):
        with pytest.raises(UsageError, match="name it as HOST/PATH@sha256:…, as 'composeapps publish' printed it"):
            parse_pinned(text)
    with pytest.raises(UsageError, match="name it as hub.example.com/factory/web@sha256"):
        parse_pinned("hub.example.com/factory/web:v3")


@pytest.mark.parametrize("host", ["h:99999", "h:65536", "h:0", "[::1]:70000"])
def test_a_port_that_there_is_not(host):
    with pytest.raises(UsageError, match="is not a number from 1 to 65535"):
        parse(f"{host}/x:v")


def test_ports_that_there_are():
    assert [parse(f"{host}/x").host for host in ("h:1", "h:65535", "[::1]:5000", "[::1]")] == [
        "h:1", "h:65535", "[::1]:5000", "[::1]"]


@pytest.mark.parametrize(("text", "says"), [
    ("a" * 2000, "has 2000 characters, more than the 1000 allowed"),
    ("hub.example.com/" + "a/" * 150 + "a", "more than the 255 characters that registries take"),
    ("h" * 300 + ".example/a", "more than the 255 characters"),
])
def test_references_that_are_too_long(text, says):
    with pytest.raises(UsageError, match=says) as caught:
        parse(text)
    assert len(str(caught.value)) < 500


def test_the_longest_reference():
    text = f"{'h' * 250}.test/{'a' * 255}:{'t' * 128}@{DIGEST}"
    assert str(parse(text)) == text


@pytest.mark.parametrize("text", ["bob:hunter2@hub.example.com/f/web:1", f"https://bob:hunter2@hub.example.com/f/web@{DIGEST}",
                                  f"bob:hun/ter2@x@hub.example.com/f/web@{DIGEST}", "hunter2@hub.example.com/web",
                                  "bob:hunter2\n@hub.example.com/f/web"])
def test_a_login_before_the_host_is_refused_and_not_repeated(text):
    for parser in (parse, parse_pinned):
        with pytest.raises(UsageError, match=r"'hub\.example\.com/.*docker login") as caught:
            parser(text)
        assert "ter2" not in str(caught.value) and "bob" not in str(caught.value)
