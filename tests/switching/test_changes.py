# SPDX-License-Identifier: MIT
"""What counts as a change of a service, and what does not; no dockerd is asked."""

import shutil

import pytest

from composeapps.app.tree import whole
from composeapps.errors import NotFoundError
from composeapps.switching import changes, definition
from support.device import service
from support.steps import beyond_linear, counted

CONF = {"conf/a": "1", "conf/b": "1", "web.env": "A=1\n", ".env": "GREETING=1\nOTHER=1\n"}


def _web(**more):
    return {"image": "base", "command": ["/bin/busybox"], **more}


def _changes(shelf, before, after, old_files=CONF, new_files=CONF, **tops):
    """Return {service: reasons} of what is touched, of an app of two services of which one never differs."""
    other = {"image": "base", "network_mode": "none"}
    old = shelf.version({"web": before, "other": other}, old_files, **tops.get("old", {}))
    new = shelf.version({"web": after, "other": other}, new_files, **tops.get("new", {}))
    found = shelf.between(old, new)
    assert {each.name for each in found.services} == {"web", "other"}
    return {each.name: list(each.reasons) for each in found.touched}


def test_the_same_version_again_changes_nothing(shelf):
    assert _changes(shelf, _web(), _web()) == {}


def test_image_and_definition(shelf):
    assert _changes(shelf, _web(), _web(image="other")) == {"web": ["image"]}
    assert _changes(shelf, _web(), _web(user="1")) == {"web": ["definition"]}
    assert _changes(shelf, _web(), _web(image="other", user="1")) == {"web": ["image", "definition"]}


@pytest.mark.parametrize("more, changed", (
    ({"volumes": ["./conf/a:/a:ro"]}, False),
    ({"volumes": ["./conf/b:/b"]}, True),
    ({"volumes": ["./conf:/conf"]}, True),
    ({"volumes": [".:/all"]}, True),
    ({"volumes": [{"type": "bind", "source": "conf/b", "target": "/b"}]}, True),
    ({"volumes": ["${WHERE}/b:/b"]}, True),
    ({"volumes": ["conf:/conf"]}, False),
    ({"volumes": ["/conf:/conf"]}, False),
    ({"env_file": "conf/b"}, True),
    ({"env_file": ["web.env", {"path": "./conf/b", "required": False}]}, True),
    ({"configs": ["one"]}, True),
    ({"secrets": [{"source": "two", "target": "x"}]}, True),
))
def test_a_file_of_the_bundle_matters_to_those_who_use_it(shelf, more, changed):
    tops = {"configs": {"one": {"file": "./conf/b"}}, "secrets": {"two": {"file": "conf/b"}},
            "volumes": {"conf": {}}}
    found = _changes(shelf, _web(**more), _web(**more), CONF, {**CONF, "conf/b": "2"}, old=tops, new=tops)
    # A service that mounts the whole bundle has the compose file in it too, which is the same here.
    assert found == ({"web": ["file conf/b of the bundle"]} if changed else {})


def test_files_come_and_go_in_a_mounted_directory(shelf):
    more = {"volumes": ["./conf:/conf"]}
    without = {name: data for name, data in CONF.items() if name != "conf/b"}
    assert _changes(shelf, _web(**more), _web(**more), CONF, without) == {"web": ["file conf/b of the bundle"]}
    assert _changes(shelf, _web(**more), _web(**more), without, CONF) == {"web": ["file conf/b of the bundle"]}
    many = {**CONF, **{f"conf/{number}": "" for number in range(8)}}
    (reasons,) = _changes(shelf, _web(**more), _web(**more), CONF, many).values()
    assert len(reasons) == 6 and reasons[-1] == "3 more files of the bundle"


@pytest.mark.parametrize("more, changed", (
    ({"environment": {"X": "${GREETING:-none}"}}, True),
    ({"environment": ["X=$GREETING"]}, True),
    ({"environment": ["GREETING"]}, True),
    ({"environment": {"GREETING": None}}, True),
    ({"environment": {"X": "${OTHER}"}}, False),
    ({"environment": {"X": "$$GREETING"}}, False),
    ({"env_file": "uses.env"}, True),
    ({}, False),
))
def test_a_variable_of_the_env_file_matters_to_those_who_use_it(shelf, more, changed):
    files = {**CONF, "uses.env": "A=${GREETING}\n"}
    found = _changes(shelf, _web(**more), _web(**more), files, {**files, ".env": "GREETING=2\nOTHER=1\n"})
    assert found == ({"web": ["variable GREETING of .env"]} if changed else {})


def test_an_env_file_is_taken_apart_as_compose_does_it(shelf):
    more = {"environment": {"X": "${OTHER}"}}
    for old, new, same in (("OTHER='a\nb'\n", "OTHER='a\nc'\n", False), ("A=1\nOTHER=$A\n", "A=2\nOTHER=$A\n", False),
                           ("OTHER=1 # x\n", "OTHER='1'\n", True), ("A='x\ny'\nOTHER=1\n", "A=z\nOTHER=1\n", True)):
        found = _changes(shelf, _web(**more), _web(**more), {".env": old}, {".env": new})
        assert found == ({} if same else {"web": ["variable OTHER of .env"]})


def test_networks_configs_and_volumes(shelf):
    assert _changes(shelf, _web(), _web(), old={}, new={"networks": {"default": {"internal": True}}}) == {
        "web": ["network default"]}
    config = {"old": {"configs": {"c": {"content": "1"}}}, "new": {"configs": {"c": {"content": "2"}}}}
    assert _changes(shelf, _web(configs=["c"]), _web(configs=["c"]), **config) == {"web": ["config c"]}
    volume = {when: {"volumes": {"data": {"labels": {"a": number}}}} for when, number in (("old", "1"), ("new", "2"))}
    more = {"volumes": ["data:/v"]}
    assert _changes(shelf, _web(**more), _web(**more), **volume) == {}
    found = shelf.between(shelf.version({"web": _web(**more)}, **volume["old"]),
                          shelf.version({"web": _web(**more)}, **volume["new"]))
    assert found.warnings == ("volume 'data' is defined otherwise than before: it is kept as it is, with its data",)


def test_services_that_hang_on_a_changed_one(shelf):
    def app(user):
        return shelf.version({
            "a": _web(user=user), "b": _web(network_mode="service:a"), "c": _web(volumes_from=["b:ro"]),
            "d": _web(depends_on={"a": {"condition": "service_started", "restart": True}}),
            "e": _web(depends_on=["a"])})

    found = {each.name: each.reasons for each in shelf.between(app("1"), app("2")).touched}
    assert found == {"a": ("definition",), "b": ("shares the network of service a",),
                     "c": ("takes the volumes of service b",), "d": ("is restarted with service a",)}


def test_services_come_and_go(shelf):
    old, new = shelf.version({"a": _web(), "b": _web()}), shelf.version({"c": _web(image="other"), "a": _web()})
    found = shelf.between(old, new)
    assert [(each.name, each.kind) for each in found.services] == [
        ("c", changes.ADDED), ("a", changes.UNCHANGED), ("b", changes.REMOVED)]
    assert [each.kind for each in shelf.between(None, old).services] == [changes.ADDED, changes.ADDED]
    assert found.dump()["services"][0]["new_image"].startswith("hub.demo.test/f/other@sha256:")


@pytest.mark.parametrize("labels, more, strategy, timeout, warning", (
    ({}, {}, "download-then-kill", 60, ""),
    ({"io.balena.update.strategy": "kill-then-download"}, {}, "kill-then-download", 60, ""),
    ({"io.balena.update.strategy": "hand-over", "io.balena.update.handover-timeout": "1500"}, {}, "hand-over", 1.5, ""),
    ({"io.balena.update.strategy": "hand-over", "composeapps.update.strategy": "delete-then-download"}, {},
     "delete-then-download", 60, ""),
    ({"composeapps.update.strategy": "now"}, {}, "download-then-kill", 60, "'now' is no update strategy"),
    ({"composeapps.update.strategy": "hand-over", "composeapps.update.handover-timeout": "1m"}, {}, "hand-over", 60,
     "'1m' is no number of milliseconds"),
    ({"composeapps.update.strategy": "hand-over"}, {"container_name": "w"}, "download-then-kill", 60,
     "cannot hand over, since it has a container_name"),
    ({"composeapps.update.strategy": "hand-over"}, {"ports": ["80:80"]}, "download-then-kill", 60, "a fixed port"),
    ({"composeapps.update.strategy": "hand-over"}, {"ports": ["127.0.0.1:${P:-80}:80/tcp"]}, "download-then-kill", 60,
     "a fixed port"),
    ({"composeapps.update.strategy": "hand-over"}, {"ports": ["80", 81, "127.0.0.1::80", {"target": 80}]},
     "hand-over", 60, ""),
    ({"composeapps.update.strategy": "hand-over"}, {"ports": [{"target": 80, "published": "80"}]},
     "download-then-kill", 60, "a fixed port"),
))
def test_labels_say_how_a_service_is_updated(shelf, labels, more, strategy, timeout, warning):
    found = shelf.between(None, shelf.version({"web": _web(labels=labels, **more)}))
    (web,) = found.services
    assert (web.strategy, web.handover_timeout) == (strategy, timeout)
    assert [warning in each for each in found.warnings] == ([True] if warning else [])


def test_a_plan_needs_no_bundle_whose_contents_are_known(shelf):
    old, new = shelf.version({"web": _web()}), shelf.version({"web": _web(user="1")})
    known = whole(new, shelf.store)
    shelf.store.blob_path(new.bundle.digest).unlink()
    shutil.rmtree(shelf.store.app_dir(new.ref))
    with pytest.raises(NotFoundError):
        shelf.between(old, new)
    found = shelf.between(old, known)
    assert [each.name for each in found.touched] == ["web"]


def test_what_others_published_with_an_include_is_told(shelf):
    old, new = shelf.version({"web": _web()}), shelf.version({"web": _web()}, include=[{"path": "more.yml"}])
    (warning,) = shelf.between(old, new).warnings
    assert "what is in them is not pinned, not in the store and not started" in warning
    assert shelf.between(new, old).warnings == ()


def _chain(shelf, length, user):
    chain = {f"s{number}": service(network_mode=f"service:s{number + 1}") for number in range(length)}
    return shelf.version({**chain, f"s{length}": service(user=user)})


def _order(shelf, app):
    return definition.from_store(app, shelf.store, shelf.config).ordered()


def test_a_chain_of_any_length_is_gone_along(shelf):
    old, new = _chain(shelf, 2000, "1"), _chain(shelf, 2000, "2")
    assert all(change.kind == "changed" for change in shelf.between(old, new).services)
    assert _order(shelf, new) == [f"s{number}" for number in range(2000, -1, -1)]


def test_a_chain_takes_steps_by_its_length(shelf):
    sizes, counts = (50, 100, 200), []
    for size in sizes:
        old, new = _chain(shelf, size, "1"), _chain(shelf, size, "2")
        between, order = counted(shelf.between, old, new)[1], counted(_order, shelf, new)[1]
        counts.append({**{f"between: {key}": count for key, count in between.items()}, **order})
    assert beyond_linear(sizes, counts) == []


def test_the_order_is_that_of_the_file_behind_what_is_needed(shelf):
    app = shelf.version({"c": service(depends_on=["b", "a"]), "a": service(), "d": service(depends_on=["e"]),
                         "e": service(depends_on=["d"]), "b": service(depends_on=["absent"])})
    assert definition.from_store(app, shelf.store, shelf.config).ordered() == ["a", "b", "c", "e", "d"]
