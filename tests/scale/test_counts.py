# SPDX-License-Identifier: MIT
"""No command's work grows faster than what the device and its apps have: counted at three sizes, by function."""

import pytest

from scale.axes import AXES
from support.steps import beyond_linear

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.mark.parametrize("name", [name for name, axis in AXES.items() if axis.counted])
def test_no_command_does_more_than_in_proportion(make_place, record_property, name):
    axis, counts, found = AXES[name], {}, []
    for size in axis.counted:
        with make_place() as place:
            for command, words in axis.make(place, size).items():
                done = place.measure(*words)
                assert done.status == 0, (command, done.err)
                counts.setdefault(command, []).append(done)
    for command, measured in counts.items():
        counted = [{what: count for what, count in each.counts().items() if what not in axis.apart}
                   for each in measured]
        found += [f"{command}: {each}" for each in beyond_linear(axis.counted, counted)]
        record_property(command, [sum(each.lines.values()) for each in measured])
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("counts", "beyond"), [
    ((10, 20, 40), False), ((100, 200, 400), False), ((100, 120, 160), False), ((0, 0, 9), False),
    ((24, 64, 160), False), ((4, 16, 64), True), ((1000, 1030, 1150), True), ((0, 0, 11), True),
], ids=str)
def test_what_counts_as_more(counts, beyond):
    assert bool(beyond_linear((2, 4, 8), [{"lines of x": count} for count in counts])) is beyond
