# SPDX-License-Identifier: MIT
"""One look at a stand-in for dockerd: what its lists tell, what they do not, and when they are asked for again."""

import threading

import pytest

from composeapps.engine.labels import SERVICE
from composeapps.engine.look import Look, at

_LABELS = {SERVICE: "web", "a": "1"}


def _entry(state="running", status="Up 2 minutes", names=("/other/alias", "/web"), **more):
    return {"Id": "c" * 64, "Names": list(names), "ImageID": "sha256:1", "State": state, "Status": status,
            "Labels": _LABELS, "HostConfig": {"NetworkMode": "none"}, **more}


class _Engine:
    """A dockerd that notes what it is asked."""

    def __init__(self, *containers, images=()):
        self.listed, self.pictured, self.heard, self.ended = list(containers), list(images), [], ()

    def _hear(self, what, answer):
        self.heard.append(what)
        return answer

    def containers(self, label=None):
        return self._hear("containers", list(self.listed))

    def networks(self, label=None):
        return self._hear("networks", [{"Name": "n", "Labels": None}, {"Name": "m", "Labels": {"p": "x"}}])

    def images(self):
        return self._hear("images", self.pictured)

    def recently_ended(self, seconds):
        return self._hear("events", self.ended)

    def container(self, identifier):
        return self._hear("container", {"Id": identifier, "inspected": True})

    def image(self, name):
        return self._hear(f"image {name}", None)

    def start(self, identifier):
        self._hear("start", None)

    stop = rename = remove = load = lambda self, *_arguments, **_options: self._hear("change", True)


@pytest.mark.parametrize("status, health", [
    ("Up 2 minutes", None), ("Up Less than a second (healthy)", "healthy"), ("Up 3 days (unhealthy)", "unhealthy"),
    ("Up About a minute (health: starting)", "starting"),
])
def test_what_runs_is_not_inspected(status, health):
    engine = _Engine()
    found = Look(engine).described(_entry(status=status))
    assert (found["State"].get("Health") or {}).get("Status") == health
    assert found["State"]["Running"] and found["State"]["Status"] == "running"
    assert (found["Name"], found["Image"], found["Config"]["Labels"]) == ("/web", "sha256:1", _LABELS)
    assert engine.heard == ["events"]
    engine.ended = (found["Id"],)
    assert "inspected" in Look(engine).described(_entry(status=status))


@pytest.mark.parametrize("entry", [
    _entry("exited", "Exited (0) 2 minutes ago"), _entry("created", "Created"), _entry("paused", "Up 1 day (Paused)"),
    _entry("restarting", "Restarting (1) 2 seconds ago"), _entry("removing", "Removal In Progress"),
    _entry("dead", "Dead"), _entry(names=()), _entry(names=("/other/alias",)), _entry(status="Exited (1) just now"),
    _entry(status="Up 2 minutes (something new)"), _entry(status=""),
])
def test_what_the_list_does_not_tell_is_asked_for_once(entry):
    engine = _Engine()
    look = Look(engine)
    assert look.described(entry)["inspected"] and look.described(entry)["inspected"]
    assert engine.heard == ["container"]


def test_a_service_may_be_inspected_whatever_the_list_tells():
    look = Look(_Engine())
    assert "inspected" in look.described(_entry(), {"web"}) and "inspected" not in look.described(_entry(), {"db"})


def test_lists_are_asked_for_once_and_sorted_by_labels():
    engine = _Engine(_entry(), _entry(Labels=None), _entry(Labels={"a": "2"}))
    look = Look(engine)
    assert at(look) is look and at(engine).engine is engine
    assert [len(look.containers(label)) for label in (None, "a=1", "a", "a=2", "a=3", "b")] == [3, 1, 2, 1, 0, 0]
    assert [each["Name"] for each in look.networks("p=x")] == ["m"]
    assert engine.heard == ["containers", "networks"]


@pytest.mark.parametrize("change", [
    lambda look: look.start("c"), lambda look: look.stop("c"), lambda look: look.rename("c", "d"),
    lambda look: look.remove("images", "i"), lambda look: look.load([], []), lambda look: look.forget(),
])
def test_a_change_makes_it_look_again(change):
    engine = _Engine(_entry())
    look = Look(engine)
    look.containers()
    engine.listed = []
    assert len(look.containers()) == 1
    change(look)
    assert look.containers() == []


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
