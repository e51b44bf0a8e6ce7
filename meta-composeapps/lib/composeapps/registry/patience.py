# SPDX-License-Identifier: MIT
"""How often a request is tried again, and after how long."""

import random
import time
from typing import NamedTuple

from composeapps.registry.heads import seconds

# Seconds that a registry's Retry-After is honoured for at most.
LONGEST_REQUEST = 300
_LONGEST_DATE = 64


class Patience(NamedTuple):
    """Limits of trying again.

    ``tries`` is how many tries in a row may bring nothing; ``first_tries`` how many while a registry
    has never answered: a wrong name is not worth minutes. The pause doubles from half a second up
    to ``longest`` seconds. ``stubborn`` tells whether what another try seldom changes, that nobody
    listens or that a name does not resolve, is tried again too: a network may come back.
    """

    tries: int = 4
    first_tries: int = 4
    longest: float = 30.0
    stubborn: bool = False

    def pause(self, failures, asked=None):
        """Return the seconds to wait after so many failures in a row.

        Arguments:
            failures: 1 and up.
            asked: the seconds that the registry asked for, or None.

        With jitter, so that a fleet that lost the same registry does not come back in step.
        """
        if asked is not None:
            return min(asked, LONGEST_REQUEST) + random.uniform(0, 0.5)
        return min(0.5 * 2 ** min(failures - 1, 20), self.longest) * random.uniform(0.5, 1.5)


def retry_after(value):
    """Return the seconds that a ``Retry-After`` header asks for (RFC 9110: seconds or a date), or None."""
    if not value or len(value) > _LONGEST_DATE:
        return None
    if (asked := seconds(value)) is not None:
        return asked
    import email.utils

    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
