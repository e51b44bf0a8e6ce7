# SPDX-License-Identifier: MIT
"""Addresses from strangers: what counts as one, whose it is, and what of it messages have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composeapps.errors import RegistryError, UsageError
from composeapps.registry import proxies
from composeapps.registry.address import Origin, belongs_to, join, parse, redacted
from composeapps.registry.client import parse_endpoints
from composeapps.registry.texts import clean


def origin(url):
    return parse(url).origin


@pytest.mark.parametrize(("url", "where", "target"), [
    ("https://Hub.Example.com/v2/?a=b", Origin("https", "hub.example.com", 443), "/v2/?a=b"),
    ("http://[::1]:5000", Origin("http", "::1", 5000), "/"),
    ("https://user:pass@hub/x", Origin("https", "hub", 443), "/x"),
    ("https://hub./a b\x1b?q=\r\nX: y", Origin("https", "hub", 443), "/a%20b%1B?q=X:%20y"),
])
def test_addresses(url, where, target):
    assert parse(url) == (where, target)


@pytest.mark.parametrize("url", [
    "ftp://hub/", "hub:5000", "https://", "https://hub:0/", "https://hub:99999/", "https://[::1/", "https://hub:x/",
    "https://h\x1b[31mub/", "https://" + "a" * 70 + ".com/", "http://hub/" + "a" * 20000, "https://h ub/", ""])
def test_what_is_no_address(url):
    with pytest.raises(RegistryError, match="is not an http or https address"):
        parse(url)


@pytest.mark.parametrize(("location", "target"), [
    ("/v2/x?_state=1", "https://hub/v2/x?_state=1"), ("x?y", "https://hub/v2/a/x?y"), ("?y=1", "https://hub/v2/a/b?y=1"),
    ("//cdn/x", "https://cdn/x"), ("https://cdn:8443/x#part", "https://cdn:8443/x"), (" /x ", "https://hub/x"),
    ("../../x", "https://hub/x")])
def test_locations_are_relative_to_what_was_asked(location, target):
    assert str(join(parse("https://hub/v2/a/b?z"), location)) == target


@given(st.text(), st.text())
def test_any_text_is_an_address_or_one_kind_of_error(base, text):
    for call in (lambda: parse(text), lambda: join(parse("https://hub/a"), text), lambda: parse("https://hub/" + text)):
        try:
            found = call()
        except RegistryError as err:
            assert str(err).isprintable()
        else:
            assert str(found).isascii() and str(found).isprintable() and " " not in str(found)
    assert redacted(text).isprintable() and clean(text).isprintable()


@given(st.text("abc/?#:@[]%", min_size=4, max_size=9))
def test_a_login_is_not_shown(secret):
    for text in (f"https://me:{secret}@x/x?token={secret}", f"me:{secret}@x:99", f"https://x/x?{secret}"):
        assert secret not in redacted(text)


@pytest.mark.parametrize(("service", "registry", "own"), [
    ("https://auth.docker.io", "https://registry-1.docker.io", True),
    ("https://gitlab.example.com", "https://registry.example.com:5050", True),
    ("https://example.com", "https://registry.example.com", True),
    ("https://hub.example.com:8443", "https://hub.example.com", True),
    ("https://auth.quay.io", "https://quay.io", True), ("https://1.10.0.0.5", "https://10.0.0.5", False),
    ("http://127.0.0.1:5001", "http://127.0.0.1:5000", True),
    ("http://hub.example.com", "https://hub.example.com", False),
    ("https://evil.com", "https://registry.example.com", False),
    ("https://notexample.com", "https://registry.example.com", False),
    ("https://other.com", "https://example.com", False),
    ("https://10.0.0.6", "https://10.0.0.5", False),
    ("https://[fd00::2]", "https://[fd00::1]", False),
    ("http://localhost:1", "http://127.0.0.1:1", False),
])
def test_whose_a_token_service_is(service, registry, own):
    assert belongs_to(origin(service), origin(registry)) is own


@pytest.mark.parametrize(("no_proxy", "url", "passed_by"), [
    ("10.0.0.0/8", "https://10.1.2.3", True), ("10.0.0.0/8", "https://11.1.2.3", False),
    ("fd00::/8", "https://[fd00::1]", True),
    ("10.1.2.3:443", "https://10.1.2.3", True), ("10.1.2.3:444", "https://10.1.2.3", False),
    (".example.com", "https://hub.example.com", True), ("*.example.com", "https://hub.example.com", True),
    ("example.com", "https://notexample.com", False), ("hub.example.com:5000", "https://hub.example.com:5000", True),
    ("[fd00::1]:443", "https://[fd00::1]", True), ("*", "https://hub", True),
    ("/,:,[,10.0.0.0/99", "https://10.0.0.1", False)])
def test_what_goes_past_the_proxy(no_proxy, url, passed_by):
    found = proxies.proxy_for(origin(url), {"HTTPS_PROXY": "http://proxy:8080", "NO_PROXY": f" {no_proxy} , x"})
    assert (found is None) is passed_by


@pytest.mark.parametrize("url", [
    "socks5://u:hidden@p", "https://u:hidden@p", "http://u:hidden@p:x", "http://u:hidden@", "u:hidden/@p", "://"])
def test_a_proxy_that_cannot_be_used_is_named_without_its_login(url):
    with pytest.raises(UsageError, match="the proxy '") as caught:
        proxies.proxy_for(origin("https://hub"), {"all_proxy": url})
    assert "hidden" not in str(caught.value)


def test_an_endpoint_has_no_login():
    with pytest.raises(UsageError, match="endpoint 'hub=https://10.0.0.5' is not") as caught:
        parse_endpoints("hub=https://me:hidden@10.0.0.5")
    assert "hidden" not in str(caught.value)
