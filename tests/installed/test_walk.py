# SPDX-License-Identifier: MIT
"""A walk below a directory: each directory is opened once and from the one above, and no link is followed."""

import os

import pytest

from composeapps import beneath


@pytest.fixture
def walk(tmp_path):
    with beneath.opened(tmp_path) as root, root.walk() as made:
        yield made


def read(walk, path):
    directory, name = walk.parent(path)
    return beneath.read_at(directory, name, 1000)


def opened():
    return len(os.listdir("/proc/self/fd"))


def test_it_goes_up_and_down_and_across(walk, tmp_path):
    paths = ["a/b/c/f", "a/b/f", "a/bc/f", "a-b/f", "f", "z/f"]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    for path in (*paths, *reversed(paths), "a/b/c/f", "f", "a/bc/f", "a/b/c/f"):
        assert read(walk, path) == path.encode()
    assert os.path.samestat(os.fstat(walk.directory("")), os.stat(tmp_path)) and walk.lstat("a/none") is None


def test_a_link_in_the_way_is_not_followed_and_the_walk_goes_on(walk, tmp_path):
    (tmp_path / "d/in").mkdir(parents=True)
    (tmp_path / "d/in/f").write_text("in")
    (tmp_path / "out").symlink_to("d")
    for path, error in (("out/in/f", NotADirectoryError), ("d/none/f", FileNotFoundError),
                        ("d/in/f/f", NotADirectoryError)):
        with pytest.raises(error):
            walk.parent(path)
        assert read(walk, "d/in/f") == b"in"
    for path in ("d/../f", "d/..", "/etc/passwd", "d//f", "d/./f", ""):
        with pytest.raises(OSError, match="not a path below"):
            walk.parent(path)


def test_what_takes_the_place_of_a_directory_is_not_followed(walk, tmp_path):
    (tmp_path / "d/in").mkdir(parents=True)
    (tmp_path / "e").mkdir()
    (tmp_path / "d/in/f").write_text("in")
    assert read(walk, "d/in/f") == b"in"
    (tmp_path / "d").rename(tmp_path / "moved")
    (tmp_path / "d").symlink_to("/")
    # Where the directory is now, and once it was left, nowhere.
    assert read(walk, "d/in/f") == b"in"
    walk.directory("e")
    with pytest.raises(NotADirectoryError):
        walk.parent("d/in/f")


def test_a_tree_of_any_depth_takes_few_descriptors(walk, tmp_path):
    path, before = "", opened()
    paths = []
    for _ in range(300):
        path += "d/"
        (tmp_path / path).mkdir()
        (tmp_path / path / "f").write_text(path)
        paths.append(f"{path}f")
    for each in (*paths, *reversed(paths)):
        assert read(walk, each) == each[:-1].encode()
        assert opened() < before + 80
    walk.directory("")
    assert opened() == before
