# SPDX-License-Identifier: MIT
"""Names that versions change, and names that others have: of the project, and of containers."""


import pytest

from composeapps.errors import EngineError, UsageError
from composeapps.switching import changes, runtime, switch
from support.device import SLEEP, Device, service

pytestmark = pytest.mark.root


def _names(device):
    return {name: sorted(each["Name"].lstrip("/") for each in found) for name, found in device.containers().items()}


def _volumes(device):
    return {volume["Name"] for volume in device.engine.volumes("com.docker.compose.volume=data")
            if device.name in volume["Name"]}


@pytest.mark.parametrize("first, second", [
    ({}, {"name": "my-{0}"}), ({"name": "my-{0}"}, {"name": "your-{0}"}), ({"name": "my-{0}"}, {}),
    ({"name": "${{P:-my}}-{0}"}, {"name": "{0}-x"}),
])
def test_a_project_keeps_its_name_and_its_volumes(device, daemon, first, second):
    def version(number, top):
        return device.version({"a": service(environment={"V": number}, volumes=["data:/data"]), "b": service()},
                              volumes={"data": None}, **{key: text.format(device.name) for key, text in top.items()})

    old, new = version("1", first), version("2", second)
    device.apply(None, old)
    before, volumes, names = device.runs(), _volumes(device), _names(device)
    assert len(volumes) == 1
    device.sh("a", "echo precious > /data/x", daemon)
    assert any("keeps the name" in warning for warning in device.between(old, new).warnings)
    device.apply(old, new)
    assert device.runs()["b"] == before["b"] and "V=2" in device.only("a")["Config"]["Env"]
    assert device.sh("a", "cat /data/x", daemon) == "precious\n" and _volumes(device) == volumes
    device.apply(new, old)
    assert _names(device) == names and device.sh("a", "cat /data/x", daemon) == "precious\n"
    # Without a container, too; and without the note the containers tell.
    device.clear()
    device.apply(old, new)
    assert _volumes(device) == volumes and device.sh("a", "cat /data/x", daemon) == "precious\n"
    for place in ("", "copies"):
        (device.states.root / place / "projects" / f"{device.name}.json").write_text("\0")
    device.apply(new, old)
    assert _volumes(device) == volumes and _names(device) == names


@pytest.mark.parametrize("old, new", [
    ({"a": "x", "b": "y"}, {"a": "y", "b": "x"}), ({"a": "x", "b": "y", "c": "z"}, {"a": "y", "b": "z", "c": "x"}),
    ({"a": "x"}, {"b": "x", "a": "y"}), ({"a": "x", "b": None}, {"a": None, "b": "x"}),
    ({"gone": "x", "b": "y"}, {"b": "x"}), ({"a": None}, {"b": "default of a", "a": "y"}),
])
def test_containers_change_names_among_each_other_and_back(device, old, new):
    def version(names):
        full = {"default of a": f"{device.name}-a-1"}
        return device.version({"kept": service(), **{
            service_name: service(**({"container_name": full.get(name, f"{device.name}{name}")} if name else {}))
            for service_name, name in names.items()}})

    first, second = version(old), version(new)
    device.apply(None, first)
    before, names = device.runs()["kept"], _names(device)
    device.apply(first, second)
    changed = _names(device)
    assert set(changed) == {"kept", *new} and all(len(each) == 1 for each in changed.values())
    for name, wanted in new.items():
        if wanted and wanted != "default of a":
            assert changed[name] == [f"{device.name}{wanted}"]
    device.apply(second, first)
    assert _names(device) == names and device.runs()["kept"] == before
    assert set(device.runs()) == {"kept", *old}


def test_a_name_that_was_given_up_is_given_back_when_the_switch_fails(device):
    def version(names, **more):
        return device.version({name: service(container_name=f"{device.name}{each}", **more)
                               for name, each in names.items()})

    old = version({"a": "x", "b": "y"})
    device.apply(None, old)
    names = _names(device)
    new = version({"a": "y", "b": "x"}, command=["/bin/absent"])
    with pytest.raises(EngineError):
        device.apply(old, new)
    device.apply(new, old, hand_over=False)
    assert _names(device) == names and set(device.runs()) == {"a", "b"}


@pytest.fixture
def neighbour(device):
    """Another app on the same device."""
    made = Device(device.config.store.parent, device.engine.host, device.config.compose_command)
    yield made
    made.clear()


@pytest.mark.parametrize("top", [{"name": "shared-{0}"}, {"name": "${{X:-shared}}-{0}"}])
def test_two_apps_do_not_share_a_project(device, neighbour, top):
    top = {key: text.format(device.name) for key, text in top.items()}
    mine, theirs = device.version({"a": service()}, **top), neighbour.version({"a": service()}, **top)
    device.apply(None, mine)
    before = device.runs()
    for attempt in (lambda: neighbour.apply(None, theirs),
                    lambda: switch.check_locks(None, theirs, changes.Changes(), neighbour.states, neighbour.engine,
                                               neighbour.config)):
        with pytest.raises(UsageError, match=f"'shared-{device.name}'.*another one by 'name:'"):
            attempt()
    device.clear()
    with pytest.raises(UsageError, match=f"app {device.name} has the compose project's name"):
        neighbour.apply(None, theirs)
    assert neighbour.containers() == {} and before
    device.apply(None, mine)
    assert set(device.runs()) == {"a"}


def test_a_project_that_was_started_from_elsewhere_is_not_taken_over(device, daemon, tmp_path):
    app = device.version({"a": service()})
    place = daemon.directory / f"elsewhere{device.name}"
    place.mkdir()
    plain = Device(place, device.engine.host, device.config.compose_command)
    plain.name = device.name
    plain.directory = plain.config.compose_root / device.name
    plain.apply(None, plain.version({"a": service()}))
    try:
        with pytest.raises(UsageError, match=f"belongs to containers that were started from {plain.directory}"):
            device.apply(None, app)
        assert set(plain.runs()) == {"a"}
    finally:
        plain.clear()


def test_a_container_name_of_somebody_else_is_said_before_anything_is_touched(device, neighbour):
    old = device.version({"a": service()})
    device.apply(None, old)
    before = device.runs()
    neighbour.apply(None, neighbour.version({"other": service(container_name=f"{device.name}taken")}))
    new = device.version({"a": service(container_name=f"{device.name}taken")})
    with pytest.raises(UsageError, match=f"the container_name '{device.name}taken' is taken by a container"):
        device.apply(old, new)
    with pytest.raises(UsageError, match=f"the container_name '{device.name}taken'"):
        switch.check_locks(old, new, device.between(old, new), device.states, device.engine, device.config)
    assert device.runs() == before and set(neighbour.runs()) == {"other"}


def test_two_names_that_come_to_the_same_are_told_apart(device, neighbour):
    device.name, neighbour.name = f"{device.name}.x", f"{device.name}x"
    for each in (device, neighbour):
        each.directory = each.config.compose_root / each.name
    device.apply(None, device.version({"a": service()}))
    with pytest.raises(UsageError, match="another one by 'name:'"):
        neighbour.apply(None, neighbour.version({"a": service(SLEEP)}))
    neighbour.apply(None, neighbour.version({"a": service()}, name=f"own-{neighbour.name}"))
    assert set(device.runs()) == set(neighbour.runs()) == {"a"}
    runtime.stop(device.version({"a": service()}), device.states.get(device.name), device.states, device.config)
    assert neighbour.runs()["a"]




def test_a_volume_that_is_called_otherwise_is_another_one_at_once_and_back(device, daemon):
    def version(**volume):
        return device.version({"a": service(volumes=["data:/data"]), "b": service()}, volumes={"data": volume})

    def mounted():
        return [mount["Name"] for mount in device.only("a")["Mounts"]]

    old, new = version(), version(name=f"{device.name}-${{N:-other}}")
    device.apply(None, old)
    before, (first,) = device.runs(), mounted()
    device.sh("a", "echo precious > /data/x", daemon)
    (change,), (warning,) = device.between(old, new).touched, device.between(old, new).warnings
    assert change.reasons == ("volume data",) and "stays in that" in warning
    device.apply(old, new)
    assert mounted() == [f"{device.name}-other"] and device.runs()["b"] == before["b"]
    device.apply(new, version(name=f"{device.name}-other", labels={"x": "1"}))
    device.apply(new, old)
    assert mounted() == [first] and device.sh("a", "cat /data/x", daemon) == "precious\n"
    device.clear()
    device.engine.remove("volumes", f"{device.name}-other")
