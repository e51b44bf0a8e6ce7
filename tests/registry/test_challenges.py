# SPDX-License-Identifier: MIT
"""The parser of WWW-Authenticate headers: what RFC 9110 allows, what is sent all the same, and anything at all."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composeapps.registry.challenges import Challenge, parse_challenges

TOKEN = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=12)


@pytest.mark.parametrize(("values", "found"), [
    (['Basic realm="x"'], [Challenge("basic", {"realm": "x"})]),
    (['bEaReR realm="https://a/t",service="s" ,  scope="repository:a/b:pull,push"'],
     [Challenge("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"})]),
    (['Basic realm="one, two", Bearer realm="https://a/t"'],
     [Challenge("basic", {"realm": "one, two"}), Challenge("bearer", {"realm": "https://a/t"})]),
    (['Bearer realm="https://a/t"', 'Basic realm="x"'],
     [Challenge("bearer", {"realm": "https://a/t"}), Challenge("basic", {"realm": "x"})]),
    (["Negotiate", "NTLM TlRMTVNTUAA=", "Basic realm=plain"],
     [Challenge("negotiate", {}), Challenge("ntlm", {}, "TlRMTVNTUAA="), Challenge("basic", {"realm": "plain"})]),
    (["Negotiate, Basic realm=\"x\""], [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})]),
    ([r'Basic realm="a \"b\" \\ c"'], [Challenge("basic", {"realm": r'a "b" \ c'})]),
    (['Bearer REALM = "https://a/t" , Service = s'], [Challenge("bearer", {"realm": "https://a/t", "service": "s"})]),
    (["Bearer realm=https://a/t?x=y,service=s"],
     [Challenge("bearer", {"realm": "https://a/t?x=y", "service": "s"})]),
    ([', ,Basic realm="x",,'], [Challenge("basic", {"realm": "x"})]),
    (['Bearer realm="https://a/t", realm="https://evil/t"'], [Challenge("bearer", {"realm": "https://a/t"})]),
    (['Basic realm="never ends, Bearer realm=x'], [Challenge("basic", {})]),
    (["", "=", '"', "===", "\x1b[31m", "Basic"], [Challenge("basic", {})]),
], ids=lambda value: repr(value)[:40])
def test_what_servers_send(values, found):
    assert parse_challenges(values) == found


@given(st.lists(st.tuples(TOKEN, st.dictionaries(TOKEN.map(str.lower), st.text(st.characters(
    min_codepoint=32, max_codepoint=255)), max_size=4)), max_size=4), st.booleans())
def test_what_is_written_by_the_grammar_is_read_again(challenges, in_one):
    def quoted(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    values = [f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in params.items())
              for scheme, params in challenges]
    found = parse_challenges([", ".join(values)] if in_one else values)
    assert found == [Challenge(scheme.lower(), params) for scheme, params in challenges]


@given(st.lists(st.text(), max_size=4))
def test_anything_is_read(values):
    assert all(each.scheme for each in parse_challenges(values))


@pytest.mark.parametrize("piece", ['"', "\\", "a ", "a,", "a=", 'a="', "a=b,", " ", ",", '"\\', "a b=", "="])
def test_time_grows_with_length_alone(piece):
    # What takes the square of this does not come to an end in any test's time.
    parse_challenges([piece * 500_000] * 3)
