# SPDX-License-Identifier: MIT
"""When an update may begin to replace what runs."""

import time


def is_open(window, seconds=None):
    """Tell whether a time lies in a maintenance window.

    Arguments:
        window: (begin, end) in minutes of the day, by the device's time zone; the end may be on the next day. None for
            no limit.
        seconds: since 1970, now by default.
    """
    if window is None:
        return True
    local = time.localtime(seconds)
    minute, (begin, end) = local.tm_hour * 60 + local.tm_min, window
    return begin <= minute < end if begin < end else minute >= begin or minute < end


def words(window):
    """Return a window as the configuration has it."""
    return "-".join(f"{each // 60:02}:{each % 60:02}" for each in window)
