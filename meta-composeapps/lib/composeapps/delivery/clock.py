# SPDX-License-Identifier: MIT
"""The time by which the end of metadata is judged: a device without a battery starts in 1970.

It never is before the image was built, nor before the latest time that signed metadata told of; a server's word counts
for nothing. A clock that runs ahead ends metadata early, which stops no app and ends when the clock is set.
"""

import datetime
import os
from pathlib import Path

# systemd's convention: the time stamp of this file is a floor of the clock (systemd-timesyncd(8)).
EPOCH_FILE = Path("/usr/lib/clock-epoch")


def now(*floors, built=(EPOCH_FILE, Path(__file__))):
    """Return the time, UTC.

    Arguments:
        floors: times (UTC) before which it cannot be; None does not count.
        built: files of the image, whose times of modification are such floors, too.
    """
    known = [datetime.datetime.now(datetime.UTC), *filter(None, floors)]
    for path in built:
        try:
            known.append(datetime.datetime.fromtimestamp(os.stat(path).st_mtime, datetime.UTC))
        except (OSError, OverflowError, ValueError):
            continue
    return max(known)
