# SPDX-License-Identifier: MIT
"""The check-in of ``composeapps update`` without a version: what the factory signed is asked for and installed."""

from composeapps.errors import ComposeAppsError
from composeapps.records import journal


def run(args, parts, say):
    """Check in, and install what there is; yield (app, what came of it or an error) of each app.

    Arguments:
        args: the command's, with ``now``, ``target``, ``force`` and ``soak``.
        parts: the Parts; their lock is held.
        say: called with the sentence that says what was found, when nothing is to be done.
    """
    from composeapps.delivery import record
    from composeapps.delivery.checkin import CheckIn

    try:
        check = CheckIn(parts, args.now, args.target)
        if waits := check.waits():
            say(waits)
            return
        with check:
            found = check.look()
            if found.target is None:
                say(found.sentence)
                if found.signed is not None and record.read(parts.states).rollout:
                    from composeapps.delivery import rollout

                    rollout.withdraw(parts, found.signed)
                return
            from composeapps.delivery import rollout

            # What failed too often, or somebody went back from, comes only when it is asked for by its name.
            if not args.target and (why := rollout.refused(parts, found.target)):
                say(why)
                return
            yield from _install(args, parts, check, found.target)
            check.after()
    except ComposeAppsError as err:
        yield "", err


def _install(args, parts, check, target):
    """Install a Target, in the maintenance window where there is one; yield as ``run`` does."""
    from composeapps.delivery import rollout

    hold = check.hold()
    if parts.config.window and not hold:
        # The window may have closed when all is fetched.
        fetched = list(rollout.install(parts, target, force=args.force, soak=args.soak, hold=journal.FETCHED))
        hold = check.hold()
        if hold or any(isinstance(ended, ComposeAppsError) for _app, ended in fetched):
            yield from fetched
            return
    yield from rollout.install(parts, target, force=args.force, soak=args.soak, hold=hold)


def from_bundle(args, parts, say):
    """Install what an offline bundle has for this device; arguments and what is yielded are as for ``run``.

    Blobs go from the bundle straight into the store; what of them is there already is not read.
    """
    from composeapps.delivery import bundles, offline
    from composeapps.delivery.memory import Memory
    from composeapps.delivery.stored import of_device

    try:
        bundle = bundles.Bundle(args.bundle)
        client = bundle.client()
        # A check-in writes down what it believes, too, and lets go of the lock of the apps meanwhile.
        with Memory(parts.states.root).alone():
            target, sentence = offline.choose(parts, bundle, of_device(parts.config, parts.states, parts.notify),
                                              args.target)
        if target is None:
            say(sentence)
            return
        from composeapps.delivery import rollout

        if not args.target and (why := rollout.refused(parts, target)):
            say(why)
            return
        with parts.fetching_from(client):
            yield from rollout.install(parts, target, force=args.force, soak=args.soak)
    except ComposeAppsError as err:
        yield "", err
