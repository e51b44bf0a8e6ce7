# SPDX-License-Identifier: MIT
"""A store that is not there: where that is a mistake or a loss, and where nothing was ever to be in it."""

from composeapps.cli import output
from composeapps.errors import NotFoundError


def missing(args, store, expected=()):
    """Return the error about a store that should be there and is not, else None.

    Arguments:
        args: the command line; a store that its --store names should be there.
        store: the Store.
        expected: names of apps that should be in it.

    A device on which nothing was ever fetched or installed has no store, which is told on standard error.
    """
    problem = store.absence()
    if problem is None:
        return None
    if not isinstance(problem, NotFoundError):
        return problem
    if args.store is not None:
        return NotFoundError(f"{problem}: --store has to name the directory of a restorable store")
    if expected:
        return NotFoundError(f"{problem}, though {', '.join(sorted(expected))} should be in it: 'composeapps run "
                             "--factory --installed' brings back what the factory store or a registry has")
    output.notify(f"composeapps: {problem}: nothing was put there yet")
    return None
