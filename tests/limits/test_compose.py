# SPDX-License-Identifier: MIT
"""An app costs the agent at most 64 MiB and 5 seconds of CPU, however many parts it has or seems to have."""

import os

from support.apps import compose_text, make_app
from support.images import make_image, multi_platform, push_image

# Commands that read what is in the store, and need no dockerd.
READERS = (("ls",), ("show", "shop"), ("check", "--store-only", "shop"))


def services(registry, image, count):
    """Return {name: pinned reference}."""
    return {f"s{number}": f"{registry.host}/f/web@{image.digest}" for number in range(count)}


def aliases(levels, width=10):
    """Return a compose file's text whose aliases stand for ``width`` to the ``levels``."""
    lines = ["x-a0: &a0 [" + ", ".join(["lol"] * width) + "]"]
    lines += [f"x-a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def test_aliases_that_multiply(device, tmp_path, registry, factory_name):
    image = multi_platform("web")
    text = compose_text(services(registry, image, 1)) + aliases(9)
    device.keep(make_app(text, images=[image]), image, text)
    for words in READERS:
        device.run(*words).within()
    name = push_image(registry, f"{registry.host}/{factory_name}/web:1", image)
    (tmp_path / "docker-compose.yml").write_text(f"services:\n  web:\n    image: {name}\n" + aliases(9))
    done = device.run("publish", tmp_path, f"{registry.host}/{factory_name}/shop:1").within()
    assert done.status == 0 or "alias" in done.err


def test_a_directory_of_ten_thousand_links_is_published(device, memory, registry, factory_name):
    directory = memory / "app"
    directory.mkdir()
    name = push_image(registry, f"{registry.host}/{factory_name}/web:1", multi_platform("web"))
    (directory / "docker-compose.yml").write_text(f"services:\n  web:\n    image: {name}\n")
    (directory / "l0").write_text("here\n")
    for number in range(1, 10000):
        os.symlink(f"l{number - 1}", directory / f"l{number}")
    done = device.run("publish", directory, f"{registry.host}/{factory_name}/shop:1").within()
    assert done.status in (0, 2), done.err


def test_two_hundred_services_with_ten_thousand_files(device, memory, registry, factory_name):
    directory = memory / "app"
    for place in range(100):
        (directory / f"d{place}").mkdir(parents=True)
        for number in range(100):
            (directory / f"d{place}" / f"f{number}").write_text(f"{place} {number}\n")
    name = push_image(registry, f"{registry.host}/{factory_name}/web:1", make_image()).partition("@")[0] + ":1"
    (directory / "docker-compose.yml").write_text("services:\n" + "".join(
        f"  s{number}:\n    image: {name}\n    environment:\n      NUMBER: '{number}'\n      MODE: ${{MODE:-plain}}\n"
        f"    volumes:\n      - ./d{number % 100}:/data:ro\n    depends_on:\n      - s{max(number - 1, 0)}\n"
        if number else f"  s0:\n    image: {name}\n" for number in range(200)))
    done = device.run("publish", directory, f"{registry.host}/{factory_name}/shop:1").within()
    assert done.status == 0, done.err
    uri = done.out.split()[-1]
    assert device.run("pull", uri).within().status == 0
    for words in READERS:
        assert device.run(*words).within().status == 0
