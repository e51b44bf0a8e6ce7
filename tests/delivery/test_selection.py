# SPDX-License-Identifier: MIT
"""Which Target a device takes."""

import pytest

from composeapps.delivery import selection

DIGEST = "sha256:" + "a" * 64
SHOP = f"hub.example.com/factory/shop@{DIGEST}"


def custom(version="1", hardware=("board",), tags=("main",), apps=None, **more):
    return {"name": "device", "version": version, "hardwareIds": list(hardware), "tags": list(tags),
            "docker_compose_apps": {"shop": {"uri": SHOP}} if apps is None else apps, **more}


def chosen(*customs, tags=("main",)):
    targets = selection.of((f"device-{number}", each) for number, each in enumerate(customs))
    found = selection.choose(targets, "board", tags)
    return found and found.name


def test_the_highest_version_counts_as_a_number():
    assert chosen(custom("9"), custom("10"), custom("1")) == "device-1"


def test_other_hardware_and_other_tags_are_passed_over():
    assert chosen(custom("9", hardware=("other",)), custom("8", tags=("devel",)), custom("1")) == "device-2"
    assert chosen(custom("9", hardware=("other",))) is None
    assert chosen(custom("9", hardware=())) is None
    assert chosen(custom("9", tags=())) is None


def test_any_of_the_devices_tags_will_do():
    assert chosen(custom("9", tags=("b", "c")), tags=("a", "b")) == "device-0"


def test_of_equal_versions_all_devices_take_the_same():
    several = [("device-a", custom("3")), ("device-b", custom("3")), ("device-c", custom("2"))]
    for order in (several, several[::-1]):
        assert selection.choose(selection.of(order), "board", ["main"]).name == "device-b"


@pytest.mark.parametrize("version", ["1.5", "v2", "", "-1", "9" * 30, "٣", " 3", "1e3"])
def test_a_version_that_is_no_whole_number_is_not_taken_and_said(version):
    assert chosen(custom(version), custom("1")) == "device-1"
    target = selection.parse("device-9", custom(version))
    assert "whole number" in target.problem


@pytest.mark.parametrize("odd", [None, [], "text", {}, {"version": None}, {"version": []}, {"version": True},
                                 {"hardwareIds": ["board"]}])
def test_what_is_no_target_of_apps_is_left_out(odd):
    assert chosen(odd, custom("1")) == "device-1"


@pytest.mark.parametrize(("apps", "reason"), [
    ({"shop": {"uri": "hub.example.com/factory/shop:latest"}}, "shop"),
    ({"shop": {"uri": 5}}, "no uri"),
    ({"shop": {}}, "no uri"),
    ({"shop": []}, "no uri"),
    ({"../shop": {"uri": SHOP}}, "its app"),
    ({"Shop": {"uri": SHOP}}, "its app"),
    ({"other": {"uri": SHOP}}, "another one"),
    # What would be installed has another name than what would be looked for afterwards.
    ({"shop": {"uri": SHOP.replace("factory/", "factory/sub/")}}, "another one"),
    ({"sub/shop": {"uri": SHOP}}, "another one"),
    ({"shop": {"uri": SHOP}, "sub/shop": {"uri": SHOP.replace("a" * 64, "b" * 64)}}, "another one"),
    # What cannot be read is no list without apps: that would take all of them away.
    ([], "list of apps"),
    ("", "list of apps"),
    (False, "list of apps"),
    ([SHOP], "list of apps"),
    ({f"a{number}": {"uri": SHOP} for number in range(201)}, "list of apps"),
])
def test_a_target_with_odd_apps_is_not_taken_whole_nor_in_part(apps, reason):
    assert chosen(custom("9", apps=apps), custom("1")) == "device-1"
    assert reason in selection.parse("device-9", custom("9", apps=apps)).problem


def test_the_host_in_a_uri_may_be_any_since_the_digest_is_what_is_signed():
    uri = f"127.0.0.1:8080/composeapphack/shop@{DIGEST}"
    assert selection.parse("device-1", custom(apps={"shop": {"uri": uri}})).apps == {"shop": uri}


@pytest.mark.parametrize("name", ["x" * 201, "device\n9", "device-\x1b[2J", "größe-9"])
def test_a_target_whose_name_would_spoil_what_it_is_told_in_is_not_taken(name):
    target = selection.parse(name, custom("9"))
    assert selection.choose([target], "board", ["main"]) is None and len(target.problem) < 300
    assert target.problem.isprintable()


def test_a_target_without_apps_is_one():
    assert chosen(custom("4", apps={}), custom("3")) == "device-0"


def test_a_shortlist_takes_some_apps_and_an_empty_one_none():
    target = selection.parse("device-1", custom(apps={"shop": {"uri": SHOP}, "web": {
        "uri": SHOP.replace("shop", "web")}}))
    assert set(selection.shortlist(target, None)) == {"shop", "web"}
    assert set(selection.shortlist(target, ("web", "unknown"))) == {"web"}
    assert selection.shortlist(target, ()) == {}
