# SPDX-License-Identifier: MIT
"""What grows, and the commands that are measured when it is so large.

What is timed grows alone, to be found by its name. Counts tell by the function what does too much: there some things
that have nothing to do with each other grow together, at a part of the cost.

An axis is a function that makes a fresh Place so large and returns {command: words}. Each command leaves the
place as it was, but for those that stand behind "rm", which comes last.
"""

from typing import NamedTuple

from composeapps.records import history
from scale.place import plain
from support.engine import busybox_image
from support.images import make_image, make_index, sha256, tar

# The commands at which nothing is to be done.
LOOKS = {"run": ["run", "--factory", "--installed"], "status": ["status"], "ps": ["ps"], "check": ["check"],
         "prune": ["prune"], "ls": ["ls"], "history": ["history"]}


class Axis(NamedTuple):
    """``make`` takes a Place and a size; ``counted`` are three sizes for counting, ``timed`` those for timing, or none.

    ``apart`` are counts that are not judged, since what is counted grows with the square of the size by itself.
    """

    make: object
    counted: tuple
    timed: tuple
    apart: tuple = ()


AXES = {}


def axis(counted, timed, apart=()):
    """Register a function as an axis: its first size of three for counting, of four for timing; 0 for no such sizes."""
    def register(function):
        sizes = [tuple(first << power for power in range(count)) if first else () for first, count in (
            (counted, 3), (timed, 4))]
        AXES[function.__name__] = Axis(function, *sizes, apart)
        return function

    return register


def installed(place, uri):
    """Have an app installed and running; return the commands that are measured with it."""
    place.factory([uri])
    place.run("run", uri)
    return {**LOOKS, "show": ["show", uri], "install": ["install", uri], "update": ["update", uri],
            "update --plan": ["update", "--plan", uri], "rm": ["rm", place.app]}


def fetched(place, uri):
    """Return the commands that ask the registry for an app, the first time and once more."""
    return {"inspect": ["inspect", uri], "pull": ["pull", uri], "pull again": ["pull", uri],
            "check": ["check", "--store-only"], "show": ["show", uri]}


def published(place, directory):
    """Return the commands that publish a directory, the first time and once more."""
    words = ["publish", str(directory), f"{place.host}/{place.name}/{place.app}:1"]
    return {"publish": words, "publish again": words}


# What a device has.


@axis(2, 3)
def apps(place, size):
    """Apps of one service each, all of them installed and of the factory's.

    They are stopped, started, brought to another version, of half of them with another image, and removed, all at once.
    """
    def put(number, version):
        own = busybox_image(make_image, tar, {"content": f"{place.name} {number} {number % 2 and version}"})
        return place.put({"web": plain(environment={"VERSION": version})}, {"number": f"{number} {version}"},
                         f"{place.app}{number}", {"web": own})

    uris = [put(number, "1") for number in range(size)]
    newer = [put(number, "2") for number in range(size)]
    names = [f"{place.app}{number}" for number in range(size)]
    place.factory(uris)
    place.run("run", *uris)
    return {**LOOKS, "prune": ["prune", "--dry-run"], "install": ["install", *uris], "show": ["show", uris[0]],
            "update": ["update", *uris], "update --plan": ["update", "--plan", *uris],
            **{f"{command} by names": [command, *names[1:]] for command in ("run", "ps", "check", "status")},
            "stop": ["stop", *names], "start": ["run", *names], "update each": ["update", *newer], "rm": ["rm", *names]}


@axis(0, 6)
def versions(place, size):
    """Versions of one app in the store, of which the last one is installed."""
    return {**installed(place, _versions(place, size)[-1]), "prune": ["prune", "--dry-run"]}


def _versions(place, size, **more):
    return [place.put({"web": plain(environment={"N": str(number)})}, **more) for number in range(size)]


@axis(0, 3)
def images(place, size):
    """Images in dockerd: of this app's services, and as many that nobody knows."""
    own = {f"s{each}": busybox_image(make_image, tar, {"content": f"{place.name} {each}"}) for each in range(size)}
    uri = place.put({name: plain() for name in own}, images=own)
    place.run("install", _other_images(place, size))
    commands = installed(place, uri)
    place.run("uninstall", "other")
    return commands


def _other_images(place, size):
    other = {f"s{each}": busybox_image(make_image, tar, {"content": f"other {place.name} {each}"})
             for each in range(size)}
    return place.put({name: plain() for name in other}, app="other", images=other)


@axis(0, 8)
def containers(place, size):
    """Containers in dockerd that are not this agent's, on the image of its app."""
    commands = installed(place, place.put({"web": plain()}))
    _add_containers(place, size)
    return commands


def _add_containers(place, size):
    (listed,) = place.device.engine.containers(f"com.docker.compose.project.working_dir={place.root}/compose/"
                                               f"{place.app}")
    for number in range(size):
        place.create_container(f"{place.name}c{number}", listed["ImageID"])


@axis(0, 50)
def history_entries(place, size):
    """Entries of the history, of as many apps as it takes."""
    commands = installed(place, place.put({"web": plain()}))
    _add_history(place, size)
    return commands


def _add_history(place, size):
    for number in range(size):
        history.append(place.device.states, {"app": f"a{number // history.KEEP_APP}", "action": "update",
                                             "result": "committed", "started": str(number)})


@axis(0, 150)
def blobs(place, size):
    """Blobs in the store that nobody names, and downloads that were cut off."""
    commands = installed(place, place.put({"web": plain()}))
    _add_blobs(place, size)
    return {**commands, "prune": ["prune", "--dry-run"]}


def _add_blobs(place, size):
    for number in range(size):
        data = f"{number}".encode()
        place.device.store.add_blob(sha256(data), [data])
        (place.device.store.ingest / sha256(f"p{number}".encode())[7:]).write_bytes(b"x")


@axis(2, 0)
def belongings(place, size):
    """All that a device may have besides one app that runs: versions, images, containers, history, blobs."""
    own = {"web": busybox_image(make_image, tar, {"content": f"{place.name} own"})}
    place.run("install", _other_images(place, size))
    commands = installed(place, _versions(place, size, images=own)[-1])
    place.run("uninstall", "other")
    _add_containers(place, size)
    _add_history(place, 10 * size)
    _add_blobs(place, 10 * size)
    return {**commands, "prune": ["prune", "--dry-run"]}


# What an app has.


@axis(3, 6)
def services(place, size):
    """Services of one app, each started after the one before."""
    return installed(place, place.put(
        {f"s{each}": plain(environment={"A": "${A}"}, volumes=["./d:/d:ro", f"./f{each}:/f:ro", f"v{each}:/v"],
                           **({"depends_on": [f"s{each - 1}"]} if each else {})) for each in range(size)},
        {"d/a": "1", ".env": "A=1\n", **{f"f{each}": str(each) for each in range(size)}},
        volumes={f"v{each}": {} for each in range(size)}))


@axis(0, 500)
def files(place, size):
    """Files of a directory that a service mounts."""
    return installed(place, place.put({"web": plain(volumes=["./d:/d:ro"])}, _files(size)))


def _files(size):
    return {f"d/{number % 7}/{number}": f"{number}\n" for number in range(size)}


@axis(0, 1000)
def links(place, size):
    """Symbolic links of a bundle, each to the one before, and hard links."""
    return installed(place, place.put({"web": plain(volumes=["./d:/d:ro"])}, {"d/l0": "here"}, links=_links(size)))


def _links(size):
    return {**{f"d/l{number}": ("symbolic", f"l{number - 1}") for number in range(1, size)},
            **{f"d/h{number}": ("hard", f"d/h{number - 1}" if number else "d/l0") for number in range(size)}}


@axis(10, 50, apart=("bytes read",))
def depth(place, size):
    """Directories within each other. What a record has of them are whole paths, of which each is longer."""
    return installed(place, place.put({"web": plain(volumes=["./d:/d:ro"])}, {f"{'d/' * size}f": "x"}))


@axis(0, 20)
def layers(place, size):
    """Layers of an image."""
    return fetched(place, place.push({"web": plain()}, images={"web": _layers(place, size)}))


def _layers(place, size):
    return make_image(layers=[tar({f"f{number}": place.name}) for number in range(size)])


@axis(4, 5)
def platforms(place, size):
    """Platforms of an image, of which the last is this machine's; of Linux all of them."""
    names = [f"linux/arch{number}" for number in range(size - 1)]
    image = make_index(*(make_image({"f": place.name}, each) for each in (*names, "linux/amd64")))
    uri = place.push({"web": plain()}, images={"web": image})
    directory = place.directory(f"services:\n  web:\n    image: {place.push_image(image)}\n")
    return {**fetched(place, uri), **published(place, directory)}


@axis(0, 500)
def fetched_files(place, size):
    """Files of a bundle that is fetched."""
    return fetched(place, place.push({"web": plain()}, {f"d/{number % 7}/{number}": "x" for number in range(size)}))


@axis(0, 5)
def fetched_services(place, size):
    """Services of an app that is fetched, each with an image of its own."""
    own = {f"s{each}": make_image({"content": f"{place.name} {each}"}) for each in range(size)}
    return fetched(place, place.push({name: plain() for name in own}, images=own))


@axis(0, 25)
def versions_beside(place, size):
    """Versions of other apps in the store of a device that fetches one."""
    _add_others(place, size)
    return fetched(place, place.push({"web": plain()}))


def _add_others(place, size):
    for number in range(size):
        place.put({"web": plain()}, {"number": str(number)}, f"other{number}")


@axis(4, 0)
def fetching(place, size):
    """All that a fetch may have to do with: services with images of their own, layers, files, what the store has."""
    own = {f"s{each}": make_image({"content": f"{place.name} {each}"}) for each in range(size)}
    _add_others(place, size)
    return fetched(place, place.push({name: plain() for name in ("web", *own)}, _files(5 * size),
                                     images={"web": _layers(place, size), **own}))


@axis(20, 500)
def published_files(place, size):
    """Files of a directory that is published, and links."""
    return published(place, place.directory(files={f"d/{n % 7}/{n}": str(n) for n in range(size)},
                                            links={f"d/l{n}": "0/0" for n in range(size)}))


@axis(5, 100)
def published_services(place, size):
    """Services of an app that is published, with all that a compose file has."""
    text = ["x-it: &it {environment: {A: '1', B: \"${B:-b}\"}, labels: [a=b]}", "services:"]
    for each in range(size):
        text += [f"  s{each}:", "    <<: *it", "    image: IMAGE", f"    volumes: ['./d{each}:/d', 'v{each}:/v']",
                 f"    networks: [n{each}]", f"    configs: [c{each}]",
                 *([f"    depends_on: [s{each - 1}]", f"    extends: s{each - 1}"] if each % 5 else [])]
    for kind, letter, entry in (("volumes", "v", "{}"), ("networks", "n", "{}"), ("configs", "c", "{content: a}")):
        text += [f"{kind}:", *(f"  {letter}{each}: {entry}" for each in range(size))]
    return published(place, place.directory("\n".join(text) + "\n", {f"d{each}/f": "x" for each in range(size)}))


@axis(5, 200)
def patterns(place, size):
    """Patterns of an ignore file."""
    return published(place, place.directory(files={
        ".composeappignores": "".join(f"**/a{each}*b\n!d/{each}\n" for each in range(size)), "d/1": "x", "e/a1b": "x"}))


@axis(5, 10)
def includes(place, size):
    """Compose files that are included, and environment files that are named."""
    names = [f"part{each}" for each in range(size)]
    text = "include:\n" + "".join(f"  - {name}.yml\n" for name in names) + "services:\n  web:\n    image: IMAGE\n" \
        "    env_file:\n" + "".join(f"      - {name}.env\n" for name in names)
    files = {f"{name}.yml": f"services:\n  {name}:\n    image: {place.push_image(place.image)}\n" for name in names}
    return published(place, place.directory(text, {**files, **{f"{name}.env": f"{name}=1\n" for name in names}}))


@axis(0, 100)
def variables(place, size):
    """Variables of an app: in .env, in an environment file, passed on, and used."""
    keys, own = _variables(size)
    return installed(place, place.put({"web": plain(**keys)}, own))


def _variables(size):
    """Return (keys of a service, {path: content}) of an app with so many."""
    names = [f"V{each}" for each in range(size)]
    return {"environment": {name: f"${{{name}}}" for name in names}, "env_file": ["web.env"],
            "labels": {name: f"a ${{{name}:-b}}" for name in names}}, {
        ".env": "".join(f"{name}=1\n" for name in names),
        "web.env": "".join(f"W{name}=${{{name}}}\n" for name in names)}


@axis(10, 0)
def contents(place, size):
    """All that may be in an app of one service: files and links in a directory that it mounts, variables."""
    keys, own = _variables(size)
    return installed(place, place.put({"web": plain(volumes=["./d:/d:ro"], **keys)},
                                      {**own, **_files(2 * size), "d/l0": "here"}, links=_links(5 * size)))
