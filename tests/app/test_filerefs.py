# SPDX-License-Identifier: MIT
"""The files that a compose file names, against what the bundle has."""

import pytest

from composeapps.app import bundle, filerefs
from composeapps.errors import UsageError


def named(value):
    return [(each.kind, each.owner, each.path) for each in filerefs.references(value)]


def service(**more):
    return {"services": {"a": more}}


def test_all_places_that_name_a_file_are_found():
    value = service(
        env_file=["a.env", {"path": "b.env", "required": False}], label_file="labels",
        security_opt=["seccomp:p.json", "seccomp=q.json", "seccomp=unconfined", "apparmor:x"],
        extends={"file": "base.yml", "service": "x"},
        volumes=["./data:/data:ro", "named:/x", "/only", "./only", "${X:-./y:z}:/y", "~/h:/h", 3,
                 {"type": "bind", "source": "long", "target": "/l"}, {"type": "volume", "source": "n", "target": "/n"}])
    value |= {"configs": {"c": {"file": "c.conf"}, "i": {"content": "x"}}, "secrets": {"s": {"file": "s.txt"}},
              "volumes": {"v": {"driver_opts": {"type": "none", "o": "rw,bind", "device": "./vol"}}, "w": None,
                          "n": {"driver": "nfs", "driver_opts": {"o": "bind", "device": "x"}}},
              "include": ["one.yml", {"path": ["two.yml"], "env_file": "i.env"}]}
    assert named(value) == [
        ("env_file", "a", "a.env"), ("env_file", "a", "b.env"), ("label_file", "a", "labels"),
        ("seccomp profile", "a", "p.json"), ("seccomp profile", "a", "q.json"),
        ("file that it extends", "a", "base.yml"), ("bind mount", "a", "./data"), ("bind mount", "a", "${X:-./y:z}"),
        ("bind mount", "a", "~/h"), ("bind mount", "a", "long"), ("config", "c", "c.conf"), ("secret", "s", "s.txt"),
        ("volume", "v", "./vol"), ("include", "", "one.yml"), ("include", "", "two.yml"), ("include", "", "i.env")]
    for each in filerefs.references(value):
        each.replace("moved")
    assert {path for kind, _, path in named(value) if kind != "include"} == {"moved"}
    assert value["services"]["a"]["security_opt"][:2] == ["seccomp:moved", "seccomp=moved"]


@pytest.mark.parametrize("value", [
    service(env_file=3), service(volumes={"a": 1}), service(extends=["x"]), service(security_opt=[None]),
    service(env_file=[[], None, {"path": 7}]), {"services": []}, {"configs": [1], "secrets": {"a": 1}, "include": "x"},
])
def test_what_is_written_otherwise_is_no_traceback(value):
    for each in filerefs.references(value):
        assert each.place() is not None or each.path


@pytest.mark.parametrize(("path", "place", "outside"), [
    ("a", "a", False), ("./a/../b/", "b", False), (".", ".", False), ("a/../../b", "../b", True), ("..", "..", True),
    ("/etc/x", None, False), ("~/x", None, False), ("$X/a", "", False), ("../$X", "../x", True), ("a/${X}", "", False),
    ("/srv/${X}", None, False), ("a$$b", "a$b", False), ("..a", "..a", False), ("./../$$x", "../$x", True),
])
def test_where_a_path_leads(path, place, outside):
    (each,) = filerefs.references(service(env_file=path))
    assert (each.place(), each.outside()) == (place, outside)


@pytest.fixture
def app(tmp_path):
    for name in ("docker-compose.yml", "there.env", "left.env", "dir/inner.txt", "kept/only.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "link.env").symlink_to("there.env")
    (tmp_path / "dangling.env").symlink_to("left.env")
    (tmp_path / "linkdir").symlink_to("dir")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / ".composeappignores").write_text("left*\nkept\n!kept/only.txt\n")
    return tmp_path


@pytest.mark.parametrize(("value", "says"), [
    (service(env_file="gone.env"), "service 'a' uses the env_file 'gone.env', which is not in the bundle"),
    (service(env_file=[{"path": "left.env"}]), "'left.env', which is not in the bundle"),
    (service(env_file="dangling.env"), "'dangling.env', which is not in the bundle"),
    (service(env_file="loop"), "'loop', which is not in the bundle"),
    (service(env_file="dir"), "'dir', which is a directory"),
    (service(label_file=["there.env", "no.labels"]), "uses the label_file 'no.labels'"),
    (service(env_file=[{"path": "../x.env", "required": False}]), "'../x.env', outside the app's directory"),
    (service(volumes=["dir/../../x:/x", "./../x:/x"]), "the bind mount './../x', outside"),
    (service(volumes=[{"type": "bind", "source": "gone", "target": "/x"}]), "the bind mount 'gone', which is not"),
    (service(security_opt=["seccomp=profile.json"]), "uses the seccomp profile 'profile.json', which is not"),
    (service(configs=["c"]) | {"configs": {"c": {"file": "../c"}}}, "config 'c' has '../c', outside"),
    (service(secrets=[{"source": "s"}]) | {"secrets": {"s": {"file": "dir/no"}}}, "secret 's' has 'dir/no', which"),
    (service() | {"volumes": {"v": {"driver_opts": {"o": "bind", "device": "../v"}}}}, "volume 'v' has '../v', out"),
])
def test_what_the_bundle_lacks_is_refused(app, value, says):
    with pytest.raises(UsageError) as err:
        filerefs.check_bundled(value, bundle.entries(app), "it")
    assert says in str(err.value) and str(err.value).startswith("it: ")


@pytest.mark.parametrize("value", [
    service(env_file=["there.env", "./link.env", "/etc/x.env", "$X.env", {"path": "no.env", "required": False}]),
    service(volumes=["./linkdir/inner.txt:/x", "./kept:/k", ".:/all", "./docker-compose.yml:/c", "v:/v"]),
    service() | {"configs": {"unused": {"file": "gone"}}, "secrets": {"unused": {"file": "../gone"}}},
    service(configs=["c"]) | {"configs": {"c": {"external": True}}},
])
def test_what_the_bundle_has_is_taken(app, value):
    assert filerefs.check_bundled(value, bundle.entries(app), "it") == []


def test_what_docker_compose_would_make_is_said(app):
    made = {"type": "bind", "source": "./more", "bind": {"create_host_path": True}}
    value = service(volumes=["./new:/new", made])
    first, second = filerefs.check_bundled(value, bundle.entries(app), "it")
    assert first == ("it: service 'a' uses the bind mount './new', which is not in the bundle: docker compose will "
                     "make a directory there")
    assert "'./more'" in second
