# SPDX-License-Identifier: MIT
"""One look at a stand-in for dockerd: what its lists tell, what they do not, and when they are asked for again."""

import functools
import threading

import pytest

from composeapps.engine.labels import PROJECT, SERVICE, WORKING_DIR
from composeapps.engine.look import Look, at
from composeapps.errors import EngineError

_LABELS = {SERVICE: "web", "a": "1"}


def _entry(state="running", status="Up 2 minutes", names=("/other/alias", "/web"), **more):
    return {"Id": "c" * 64, "Names": list(names), "ImageID": "sha256:1", "State": state, "Status": status,
            "Labels": _LABELS, "HostConfig": {"NetworkMode": "none"}, **more}


def _place(entry):
    return (entry.get("Labels") or {}).get(WORKING_DIR)


def _of_app(number):
    """Return the entry of a container of an app in a directory of its own."""
    labels = {SERVICE: "web", WORKING_DIR: f"/apps/{number}", PROJECT: f"p{number}"}
    return _entry(Labels=labels, Id=f"{number}" * 64)


class _Engine:
    """A dockerd that notes what it is asked."""

    def __init__(self, *containers, images=()):
        self.listed, self.pictured, self.heard, self.ended = list(containers), list(images), [], ()
        self.loaded = None

    def _hear(self, what, answer):
        self.heard.append(what)
        return answer

    def containers(self, label=None):
        found = [each for each in self.listed if not label or f"{WORKING_DIR}={_place(each)}" == label]
        return self._hear("containers" + (f" {label}" if label else ""), found)

    def networks(self, label=None):
        return self._hear("networks", [{"Name": "n", "Labels": None}, {"Name": "m", "Labels": {"p": "x"}}])

    def images(self):
        return self._hear("images", self.pictured)

    def recently_ended(self, seconds, label=None):
        return self._hear("events" + (f" {label}" if label else ""), frozenset(self.ended))

    def container(self, identifier):
        return self._hear("container", {"Id": identifier, "inspected": True})

    def image(self, name):
        return self._hear(f"image {name}", self.loaded)

    def start(self, identifier):
        self._hear("start", None)

    def load(self, manifest, blobs):
        self._hear("load", None)

    stop = rename = remove = lambda self, *_arguments, **_options: self._hear("change", True)


def _described(look, entry, inspect=()):
    (found,) = look.described_all([entry], inspect)
    return found


@pytest.mark.parametrize("status, health", [
    ("Up 2 minutes", None), ("Up Less than a second (healthy)", "healthy"), ("Up 3 days (unhealthy)", "unhealthy"),
    ("Up About a minute (health: starting)", "starting"),
])
def test_what_runs_is_not_inspected(status, health):
    engine = _Engine()
    found = _described(Look(engine), _entry(status=status))
    assert (found["State"].get("Health") or {}).get("Status") == health
    assert found["State"]["Running"] and found["State"]["Status"] == "running"
    assert (found["Name"], found["Image"], found["Config"]["Labels"]) == ("/web", "sha256:1", _LABELS)
    assert engine.heard == ["events"]
    engine.ended = (found["Id"],)
    assert "inspected" in _described(Look(engine), _entry(status=status))


@pytest.mark.parametrize("entry", [
    _entry("exited", "Exited (0) 2 minutes ago"), _entry("created", "Created"), _entry("paused", "Up 1 day (Paused)"),
    _entry("restarting", "Restarting (1) 2 seconds ago"), _entry("removing", "Removal In Progress"),
    _entry("dead", "Dead"), _entry(names=()), _entry(names=("/other/alias",)), _entry(status="Exited (1) just now"),
    _entry(status="Up 2 minutes (something new)"), _entry(status=""),
])
def test_what_the_list_does_not_tell_is_asked_for_once(entry):
    engine = _Engine()
    look = Look(engine)
    assert _described(look, entry)["inspected"] and _described(look, entry)["inspected"]
    assert engine.heard == ["container"]


def test_a_service_may_be_inspected_whatever_the_list_tells():
    look = Look(_Engine())
    assert "inspected" in _described(look, _entry(), {"web"}) and "inspected" not in _described(look, _entry(), {"db"})


def test_lists_are_asked_for_once_and_sorted_by_labels():
    engine = _Engine(_entry(), _entry(Labels=None), _entry(Labels={"a": "2"}))
    look = Look(engine)
    assert at(look) is look and at(engine).engine is engine
    assert [len(look.containers(label)) for label in (None, "a=1", "a", "a=2", "a=3", "b")] == [3, 1, 2, 1, 0, 0]
    assert [each["Name"] for each in look.networks("p=x")] == ["m"]
    assert engine.heard == ["containers", "networks"]


@pytest.mark.parametrize("change", [
    lambda look: look.start("c"), lambda look: look.stop("c"), lambda look: look.rename("c", "d"),
    lambda look: look.remove("images", "i"), lambda look: look.forget(),
])
def test_a_change_makes_it_look_again(change):
    engine = _Engine(_entry())
    look = Look(engine)
    look.containers()
    engine.listed = []
    assert len(look.containers()) == 1
    change(look)
    assert look.containers() == []


@pytest.mark.parametrize("change", [
    lambda look: look.stop("1" * 64), lambda look: look.remove("containers", "1" * 64, force="1"),
    lambda look: look.changed("/apps/1", "p1"),
])
def test_of_an_app_that_was_changed_only_its_own_list_is_asked_for(change):
    engine = _Engine(_of_app(1), _of_app(2))
    look = Look(engine)
    mine, theirs = f"{WORKING_DIR}=/apps/1", f"{WORKING_DIR}=/apps/2"
    assert len(look.containers(mine)) == 1
    change(look)
    engine.heard.clear()
    engine.listed = [_of_app(1), _of_app(2), _of_app(3)]
    assert len(look.containers(theirs)) == 1 and engine.heard == []
    for _again in range(2):
        _described(look, look.containers(mine)[0])
    assert engine.heard.count(f"containers {mine}") == 1 and "containers" not in engine.heard
    # And what is of no single app's concern is as it is now.
    assert len(look.containers()) == 3


def test_who_comes_to_an_app_after_other_work_asks_for_its_list_anew():
    engine = _Engine(_of_app(1), _of_app(2), _of_app(3))
    look, first, second = Look(engine), *(f"{WORKING_DIR}=/apps/{number}" for number in (1, 2))
    look.doubt("/apps/1")
    assert len(look.containers(first)) == len(look.containers(second)) == 1 and engine.heard == ["containers"]
    engine.listed = [_of_app(2), _of_app(3)]
    look.doubt("/apps/1")
    assert look.containers(first) == [] and len(look.containers(second)) == 1
    assert engine.heard == ["containers", f"containers {first}"]


def test_what_containers_mount_is_asked_for_again_only_of_an_app_that_may_have_new_ones():
    mount = {"Type": "bind", "Source": "/apps/1/data/", "RW": True}
    engine = _Engine({**_of_app(1), "Mounts": [mount]}, *map(_of_app, range(2, 9)))
    seen = Look(engine)
    assert seen.mounts() == [("/apps/1/data", True)]
    for number in range(2, 9):
        seen.containers(f"{WORKING_DIR}=/apps/{number}")
        seen.stop(f"{number}" * 64)
        assert seen.mounts() == [("/apps/1/data", True)]
    assert engine.heard.count("containers") == 1
    engine.listed[3]["Mounts"] = [{**mount, "Source": "/apps/1/conf", "RW": False}]
    seen.changed("/apps/4", "p4")
    assert seen.mounts() == [("/apps/1/conf", False), ("/apps/1/data", True)]
    assert engine.heard.count("containers") == 1 and f"containers {WORKING_DIR}=/apps/4" in engine.heard


def test_what_was_changed_here_is_inspected_though_the_list_shows_it_running():
    engine = _Engine(_of_app(1), _of_app(2))
    look = Look(engine)
    look.containers()
    look.stop("1" * 64)
    for entry, inspected in zip(look.containers(), (True, False), strict=True):
        assert ("inspected" in _described(look, entry)) == inspected


def test_what_was_loaded_is_asked_for_by_itself():
    engine = _Engine(images=[{"Id": "sha256:1", "RepoTags": ["a:1"]}])
    look = Look(engine)
    assert look.listed_image("b:1") is None
    look.load([], [])
    engine.loaded = {"Id": "sha256:2", "RepoTags": ["b:1"], "RepoDigests": ["b@sha256:3"]}
    assert look.learn("sha256:2") is engine.loaded
    assert [look.listed_image(name)["Id"][-1] for name in ("sha256:2", "b:1", "b@sha256:3", "a:1")] == list("2221")
    assert sorted(each["Id"] for each in look.images()) == ["sha256:1", "sha256:2"]
    assert engine.heard.count("images") == 1


def test_several_things_are_asked_for_side_by_side():
    engine = _Engine(_entry())
    look, together = Look(engine), threading.Barrier(3)

    def ask(answer, *arguments):
        together.wait(timeout=60)
        return answer(*arguments)

    for name in ("containers", "images", "recently_ended"):
        setattr(engine, name, functools.partial(ask, getattr(engine, name)))
    look.ahead(look.containers, look.images, look.ended)
    assert look.containers() and look.images() == [] and look.ended() == frozenset()
    assert sorted(engine.heard) == ["containers", "events", "images"]


def test_an_error_is_met_by_all_who_wait_for_the_answer_and_by_nobody_later():
    engine, asked, go_on, met = _Engine(_entry()), threading.Event(), threading.Event(), []

    def containers(_label=None):
        asked.set()
        assert go_on.wait(60)
        raise EngineError("away")

    engine.containers, answers = containers, engine.containers
    look = Look(engine)
    look.ahead(look.containers)
    assert asked.wait(60)

    def want():
        with pytest.raises(EngineError) as error:
            look.containers()
        met.append(error.value)

    threads = [threading.Thread(target=want) for _ in range(3)]
    for thread in threads:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert [str(error) for error in met] == ["away"] * 3
    engine.containers = answers
    assert len(look.containers()) == 1


def test_an_answer_that_was_under_way_at_a_change_counts_for_nobody_else():
    engine = _Engine(_entry())
    look, asked, go_on = Look(engine), threading.Event(), threading.Event()
    slow = engine.containers

    def containers(_label=None):
        answer = slow()
        asked.set()
        assert go_on.wait(20)
        return answer

    engine.containers = containers
    thread = threading.Thread(target=look.containers)
    thread.start()
    assert asked.wait(20)
    engine.listed = []
    look.forget()
    go_on.set()
    thread.join()
    assert look.containers() == []


def test_images_are_found_by_each_of_their_names():
    engine = _Engine(images=[{"Id": "sha256:1", "RepoTags": ["a:1"], "RepoDigests": None},
                             {"Id": "sha256:1", "RepoTags": ["b:1"], "RepoDigests": ["b@sha256:2"]}])
    look = Look(engine)
    assert set(look.listed_image("sha256:1")["RepoTags"]) == {"a:1", "b:1"}
    assert [look.image_id(name) for name in ("a:1", "b@sha256:2", "c")] == ["sha256:1", "sha256:1", None]
    assert look.listed_image("d") is None and engine.heard == ["images", "image c"]
