# SPDX-License-Identifier: MIT
"""Renewing the device's certificate before it ends, so that a cut at any step leaves an identity that the server takes.

By an EST server's ``simplereenroll`` (RFC 7030, 4.2.2), with the same key, or a new one where the configuration says
so. What is new lies beside what is used, in the identity's directory, until it was seen that the gateway lets the
device in with it; only then it takes its place. The journal there, ``renewal.json``, names the step that is under way:

``asking``     the new key may be there; the EST server is asked, once more after a cut
``trying``     the new certificate is there; the gateway is asked whether it takes it
``placing``    the gateway took it: key and certificate take their places, in any state that a cut leaves
``waiting``    it was refused; what is used stays, and it is tried again after a day

A gateway that knows a device by its key refuses another one, and so the old one stays in use.
"""

import contextlib
import datetime
import json
import time
from pathlib import Path

from composeapps import beneath, durable
from composeapps.delivery.gateway import Gateway, Refused, Service, make_context
from composeapps.disk import certify, provision, x509
from composeapps.errors import ComposeAppsError, RegistryError, UsageError
from composeapps.records import reports
from composeapps.registry.failures import Unavailable

JOURNAL, NEW_KEY, NEW_CERTIFICATE = "renewal.json", "pkey.new.pem", "client.new.pem"
NEW_AUTHORITY = "root.new.crt"
ASKING, TRYING, PLACING, WAITING = "asking", "trying", "placing", "waiting"
_STEPS = (ASKING, TRYING, PLACING, WAITING)
# Seconds until what was refused is tried again.
REST = 86400


class _Est(Service):
    kind = "the EST server"


def ends(directory):
    """Return when the device's certificate ends (UTC), None when there is none that can be read."""
    try:
        return x509.read(provision.text(directory, provision.CERTIFICATE)).not_after
    except ComposeAppsError:
        return None


def is_due(config, now):
    """Tell whether there is something to do: a renewal that was begun, or a certificate that ends soon.

    Arguments:
        now: the time (UTC).
    """
    found = _read(config.identity_dir)
    if found and found["step"] == WAITING:
        # A clock that was set back makes nobody wait for years.
        return not -60 <= now.timestamp() - found["since"] < REST
    end = ends(config.identity_dir)
    return found is not None or bool(config.renewal_server and end and end - now <= datetime.timedelta(
        days=config.renewal_days))


def resume(directory):
    """Put an identity in its place that a cut left between two: needs no network. Raises StorageError."""
    found = _read(directory)
    if found and found["step"] == PLACING:
        _place(directory)


def renew(config, floor, reporter, notify, environ=None):
    """Take the renewal to its end, or as far as the servers let it.

    Arguments:
        config: the Config.
        floor: see gateway.Gateway.
        reporter: a records.reports.Reporter.
        notify: called with a sentence for each step.

    Returns whether the device has a new certificate. Raises RegistryError for what may pass, StorageError. What is
    refused is told, and leaves the identity as it was.
    """
    directory = Path(config.identity_dir)
    found = _read(directory)
    if found and found["step"] == PLACING:
        _end(directory, reporter, found)
        return True
    if found is None or found["step"] == WAITING:
        if not config.renewal_server:
            return False
        found = {"step": ASKING, "id": f"certs-{int(time.time())}", "since": time.time()}
        provision.forget(directory, NEW_KEY, NEW_CERTIFICATE, NEW_AUTHORITY)
        _write(directory, found)
        reporter.tell(reports.ROTATION_STARTED, found["id"], success=True)
    try:
        if found["step"] == ASKING:
            _ask(config, directory, floor, environ)
            found = _step(directory, found, TRYING, reporter)
            notify("the server gave a new certificate; now the gateway is asked whether it takes it")
        _try(config, directory, floor, environ)
    except (UsageError, Refused) as err:
        return _give_up(directory, found, err, reporter, notify)
    except Unavailable as err:
        # The update server's answer to another key, which will not pass.
        if found["step"] == TRYING and "rotation" in str(err):
            return _give_up(directory, found, err, reporter, notify)
        raise
    found = _step(directory, found, PLACING, reporter)
    _end(directory, reporter, found)
    notify("the device's certificate is renewed")
    return True


def _ask(config, directory, floor, environ):
    """Get the new certificate, for a new key where there is to be one, and the server's authorities."""
    from composeapps.delivery import enrolling

    who, key = provision.known(directory), directory / provision.KEY
    if config.renewal_new_key:
        key = directory / NEW_KEY
        if not provision.has(directory, NEW_KEY):
            provision.put(directory, NEW_KEY, certify.new_key())
    before = x509.read(provision.text(directory, provision.CERTIFICATE))
    name = before.names[0] if before.names else who.device
    request = certify.request(key, name, before.units[0] if before.units else "")
    behind = time.time() < floor
    with _Est(config.renewal_server, "renewal_server of [delivery]",
              lambda: make_context(directory, timeless=behind), environ) as server:
        certificate = enrolling.ask_est(server, "simplereenroll", request)
        enrolling.check(certificate, name, key)
        if x509.read(certificate).not_after <= before.not_after:
            raise UsageError("the new certificate ends no later than the one that the device has")
        with contextlib.suppress(RegistryError, UsageError):
            authority = "".join(enrolling.pkcs7(server.get("cacerts", "the authorities").body))
            certify.check_authority(authority)
            if authority.split() != (directory / provision.AUTHORITY).read_text().split():
                provision.put(directory, NEW_AUTHORITY, authority)
    provision.put(directory, NEW_CERTIFICATE, certificate)


def _try(config, directory, floor, environ):
    """See that the gateway lets the device in with what is new; authorities that do not know the gateway are left out.
    """
    files = {provision.CERTIFICATE: directory / NEW_CERTIFICATE}
    if provision.has(directory, NEW_KEY):
        files[provision.KEY] = directory / NEW_KEY
    if provision.has(directory, NEW_AUTHORITY):
        try:
            _enter(config, floor, {**files, provision.AUTHORITY: directory / NEW_AUTHORITY}, environ)
            return
        except Unavailable as err:
            if not err.hopeless:
                raise
            provision.forget(directory, NEW_AUTHORITY)
    _enter(config, floor, files, environ)


def _enter(config, floor, files, environ):
    with Gateway(config, floor, files, environ) as gateway:
        # A server of static files has no such path, and that it says so is answer enough.
        gateway.get("device", "this device", good=(200, 404))


def _step(directory, found, step, reporter):
    reporter.tell(reports.ROTATION_STEP, found["id"], success=True, details={"step": step})
    return _write(directory, {**found, "step": step})


def _place(directory):
    for new, name in ((NEW_AUTHORITY, provision.AUTHORITY), (NEW_KEY, provision.KEY),
                      (NEW_CERTIFICATE, provision.CERTIFICATE)):
        with contextlib.suppress(FileNotFoundError):
            provision.put(directory, name, (Path(directory, new)).read_text())


def _end(directory, reporter, found):
    _place(directory)
    reporter.tell(reports.ROTATION_COMPLETED, found["id"], success=True)
    # The journal goes first: what it would put in its place once more must be there for as long as it is.
    provision.forget(directory, JOURNAL)
    provision.forget(directory, NEW_KEY, NEW_CERTIFICATE, NEW_AUTHORITY)


def _give_up(directory, found, err, reporter, notify):
    notify(f"the device keeps its certificate, a new one was refused: {err}")
    reporter.tell(reports.ROTATION_COMPLETED, found["id"], success=False, details=str(err))
    _write(directory, {**found, "step": WAITING, "since": time.time()})
    provision.forget(directory, NEW_KEY, NEW_CERTIFICATE, NEW_AUTHORITY)
    return False


def _read(directory):
    """Return the journal, None for none. One that cannot be read is none: what is used was never touched, or is whole.

    It is written before anything is done, durably, so only damage makes it unreadable; then what is placed half would
    be a key without its certificate, which is put right from what lies beside it.
    """
    directory = Path(directory)
    try:
        found = json.loads(beneath.read_regular(directory / JOURNAL))
        if found["step"] in _STEPS and isinstance(found["id"], str) and isinstance(found["since"], int | float):
            return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    try:
        certify.check_pair(provision.text(directory, provision.KEY), provision.text(directory, provision.CERTIFICATE))
    except ComposeAppsError:
        if provision.has(directory, NEW_CERTIFICATE):
            return {"step": PLACING, "id": "certs-0", "since": 0}
    return None


def _write(directory, found):
    with durable.storage_errors("writing down how far the renewal is"):
        provision.put(directory, JOURNAL, json.dumps(found) + "\n")
    return found
