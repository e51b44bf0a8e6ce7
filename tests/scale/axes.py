# SPDX-License-Identifier: MIT
"""What grows, and the commands that are measured when it is so large.

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
    """``make`` takes a Place and a size; ``counted`` are three sizes for counting, ``timed`` those for timing.

    ``apart`` are counts that are not judged, since what is counted grows with the square of the size by itself.
    """

    make: object
    counted: tuple
    timed: tuple
    apart: tuple = ()


AXES = {}


def axis(counted, timed, apart=()):
    """Register a function as an axis: its first size of three for counting, its first of four for timing."""
    def register(function):
        sizes = tuple(counted << power for power in range(3))
        AXES[function.__name__] = Axis(function, sizes, tuple(timed << power for power in range(4)), apart)
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
    """Apps of one service each, all of them installed and of the factory's."""
    uris = [place.put({"web": plain()}, {"number": str(number)}, f"{place.app}{number}") for number in range(size)]
    place.factory(uris)
    place.run("run", *uris)
    return {**LOOKS, "install": ["install", *uris], "show": ["show", uris[0]], "update": ["update", *uris],
            "update --plan": ["update", "--plan", *uris], "rm": ["rm", f"{place.app}0"],
            **{f"{command} by names": [command, *(f"{place.app}{number}" for number in range(1, size))]
               for command in ("run", "ps", "check", "status")}}


@axis(2, 3)
def stopped(place, size):
    """Apps that were stopped and are started, all by one command, and stopped again."""
    uris = [place.put({"web": plain()}, {"number": str(number)}, f"{place.app}{number}") for number in range(size)]
    names = [f"{place.app}{number}" for number in range(size)]
    place.run("run", *uris)
    place.run("stop", *names)
    return {"start": ["run", *uris], "stop": ["stop", *names]}


@axis(2, 3)
def updated(place, size):
    """Apps that are brought to another version, all by one command; of half of them the image stays the same."""
    def put(number, version):
        own = busybox_image(make_image, tar, {"content": f"{place.name} {number % 2 and version}"})
        return place.put({"web": plain(environment={"VERSION": version})}, {"number": f"{number} {version}"},
                         f"{place.app}{number}", {"web": own})

    place.run("run", *(put(number, "1") for number in range(size)))
    return {"update each": ["update", *(put(number, "2") for number in range(size))]}


@axis(2, 3)
def removed(place, size):
    """Apps that are removed, all by one command, with their images."""
    place.run("run", *(place.put({"web": plain()}, {"number": str(number)}, f"{place.app}{number}",
                                 {"web": busybox_image(make_image, tar, {"content": f"{place.name} {number}"})})
                       for number in range(size)))
    return {"rm": ["rm", *(f"{place.app}{number}" for number in range(size))]}


@axis(3, 6)
def versions(place, size):
    """Versions of one app in the store, of which the last one is installed."""
    uris = [place.put({"web": plain(environment={"N": str(number)})}) for number in range(size)]
    return {**installed(place, uris[-1]), "prune": ["prune", "--dry-run"]}


@axis(2, 3)
def images(place, size):
    """Images in dockerd: of this app's services, and as many that nobody knows."""
    own = {f"s{each}": busybox_image(make_image, tar, {"content": f"{place.name} {each}"}) for each in range(size)}
    uri = place.put({name: plain() for name in own}, images=own)
    other = place.put({name: plain() for name in own}, app="other", images={
        name: busybox_image(make_image, tar, {"content": f"other {place.name} {name}"}) for name in own})
    place.run("install", other)
    commands = installed(place, uri)
    place.run("uninstall", "other")
    return commands


@axis(3, 8)
def containers(place, size):
    """Containers in dockerd that are not this agent's, on the image of its app."""
    commands = installed(place, place.put({"web": plain()}))
    (listed,) = place.device.engine.containers(f"com.docker.compose.project.working_dir={place.root}/compose/"
                                               f"{place.app}")
    for number in range(size):
        place.create_container(f"{place.name}c{number}", listed["ImageID"])
    return commands


@axis(20, 50)
def history_entries(place, size):
    """Entries of the history, of as many apps as it takes."""
    commands = installed(place, place.put({"web": plain()}))
    for number in range(size):
        history.append(place.device.states, {"app": f"a{number // history.KEEP_APP}", "action": "update",
                                             "result": "committed", "started": str(number)})
    return commands


@axis(20, 150)
def blobs(place, size):
    """Blobs in the store that nobody names, and downloads that were cut off."""
    commands = installed(place, place.put({"web": plain()}))
    for number in range(size):
        data = f"{number}".encode()
        place.device.store.add_blob(sha256(data), [data])
        (place.device.store.ingest / sha256(f"p{number}".encode())[7:]).write_bytes(b"x")
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


@axis(20, 500)
def files(place, size):
    """Files of a directory that a service mounts."""
    return installed(place, place.put({"web": plain(volumes=["./d:/d:ro"])},
                                      {f"d/{number % 7}/{number}": f"{number}\n" for number in range(size)}))


@axis(50, 500)
def links(place, size):
    """Symbolic links of a bundle, each to the one before, and hard links."""
    return installed(place, place.put({"web": plain(volumes=["./d:/d:ro"])}, {"d/l0": "here"}, links={
        **{f"d/l{number}": ("symbolic", f"l{number - 1}") for number in range(1, size)},
        **{f"d/h{number}": ("hard", f"d/h{number - 1}" if number else "d/l0") for number in range(size)}}))


@axis(10, 50, apart=("bytes read",))
def depth(place, size):
    """Directories within each other. What a record has of them are whole paths, of which each is longer."""
    return installed(place, place.put({"web": plain(volumes=["./d:/d:ro"])}, {f"{'d/' * size}f": "x"}))


@axis(5, 5)
def layers(place, size):
    """Layers of an image."""
    image = make_image(layers=[tar({f"f{number}": place.name}) for number in range(size)])
    return fetched(place, place.push({"web": plain()}, images={"web": image}))


@axis(4, 5)
def platforms(place, size):
    """Platforms of an image, of which the last is this machine's; of Linux all of them."""
    names = [f"linux/arch{number}" for number in range(size - 1)]
    image = make_index(*(make_image({"f": place.name}, each) for each in (*names, "linux/amd64")))
    uri = place.push({"web": plain()}, images={"web": image})
    directory = place.directory(f"services:\n  web:\n    image: {place.push_image(image)}\n")
    return {**fetched(place, uri), **published(place, directory)}


@axis(20, 500)
def fetched_files(place, size):
    """Files of a bundle that is fetched."""
    return fetched(place, place.push({"web": plain()}, {f"d/{number % 7}/{number}": "x" for number in range(size)}))


@axis(4, 5)
def fetched_services(place, size):
    """Services of an app that is fetched, each with an image of its own."""
    own = {f"s{each}": make_image({"content": f"{place.name} {each}"}) for each in range(size)}
    return fetched(place, place.push({name: plain() for name in own}, images=own))


@axis(4, 25)
def versions_beside(place, size):
    """Versions of other apps in the store of a device that fetches one."""
    for number in range(size):
        place.put({"web": plain()}, {"number": str(number)}, f"other{number}")
    return fetched(place, place.push({"web": plain()}))


@axis(20, 500)
def published_files(place, size):
    """Files of a directory that is published, and links."""
    return published(place, place.directory(files={f"d/{n % 7}/{n}": str(n) for n in range(size)},
                                            links={f"d/l{n}": "0/0" for n in range(size)}))


@axis(5, 25)
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


@axis(5, 50)
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


@axis(20, 100)
def variables(place, size):
    """Variables of an app: in .env, in an environment file, passed on, and used."""
    names = [f"V{each}" for each in range(size)]
    return installed(place, place.put(
        {"web": plain(environment={name: f"${{{name}}}" for name in names}, env_file=["web.env"],
                      labels={name: f"a ${{{name}:-b}}" for name in names})},
        {".env": "".join(f"{name}=1\n" for name in names),
         "web.env": "".join(f"W{name}=${{{name}}}\n" for name in names)}))
