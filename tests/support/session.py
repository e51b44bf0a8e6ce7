# SPDX-License-Identifier: MIT
"""How a run of the suite goes: its quick part, what runs side by side and in which order, and where the time went.

With several workers (pytest-xdist, ``-n 2``) each has dockerds, registries and session fixtures of its own. Tests
that share something costly run in one worker one after the other: those of a file, those of each room of ``TOGETHER``.
"""

from pathlib import PurePath

import pytest

# Rooms whose files share what takes long to make, or a place on the disk.
TOGETHER = ("crash", "device", "emulator", "factory", "fsck", "moby")
# Rooms and files of which a group takes minutes, the longest first: no worker is left with one alone at the end.
FIRST = ("device", "fsck", "crash", "scale", "moby", "firsthour", "fastlane/test_image.py", "emulator", "switching",
         "update", "disk", "factory", "space", "status", "pull", "kills")


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true",
                     help="leave out what boots a virtual machine or is marked as slow: minutes, for who works on it")


def pytest_configure(config):
    # In the order of the collection, which is the one below.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A worker gets all tests of a group; the names of tests stay as they are, to be copied from a report."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group(nodeid)

    return Groups(config, log) if config.getoption("dist") == "load" else None


def pytest_make_parametrize_id(config, val, argname):
    """Name a parameter of bytes by its argument: packed data may have the time in it, and workers name tests alike."""
    return argname if isinstance(val, bytes) and not (val.isascii() and val.decode().isprintable()) else None


def group(nodeid):
    """Return the name of what a test shares with others: its room, or its file."""
    path = PurePath(nodeid.partition("::")[0])
    room = path.parent.name
    return room if room in TOGETHER else str(path)


def pytest_collection_modifyitems(config, items):
    if config.option.quick:
        left_out = [item for item in items if any(map(item.get_closest_marker, ("qemu", "slow")))]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item not in set(left_out)]
    if getattr(config.option, "dist", "no") != "no" or hasattr(config, "workerinput"):
        order = {name: place for place, name in enumerate(FIRST)}
        items.sort(key=lambda item: min(order.get(name, len(order)) for name in (
            item.path.parent.name, f"{item.path.parent.name}/{item.path.name}")))


def pytest_terminal_summary(terminalreporter, config):
    """With --durations also tell the files that took longest."""
    wanted = config.getoption("durations")
    if wanted is None:
        return
    seconds, tests = {}, {}
    for report in (each for reports in terminalreporter.stats.values() for each in reports):
        if hasattr(report, "duration"):
            path = report.nodeid.partition("::")[0]
            seconds[path] = seconds.get(path, 0) + report.duration
            tests[path] = tests.get(path, 0) + (report.when == "call")
    slowest = sorted(seconds, key=seconds.get, reverse=True)[:wanted or None]
    terminalreporter.section(f"slowest {wanted or ''} files".replace("  ", " "))
    for path in slowest:
        terminalreporter.write_line(f"{seconds[path]:8.1f} s {tests[path]:4} tests  {path}")
    terminalreporter.write_line(f"{sum(seconds.values()):8.1f} s in all files")
