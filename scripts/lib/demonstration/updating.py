# SPDX-License-Identifier: MIT
"""scripts/demo --update: an update, a power cut in its middle, and a broken release taken back without a network."""

import json
import shlex

from demonstration import device
from demonstration.errors import DemoError

# Slow enough that the power can go while the release is being fetched.
LIMIT = "200kB"
HOST = "10.0.2.2"
ROLLED_BACK = 14
UNIT = "demo-update"
WEB = "http://127.0.0.1:8081/"


def connect(machine, host, address):
    """Tell the device where the registry ``host`` listens: on this machine's loopback, at ``address``."""
    port = address.rpartition(":")[2]
    section = f'\n[registry."{host}"]\nurl = "http://{HOST}:{port}"\n'
    machine.run(f"printf %s {shlex.quote(section)} >> /etc/composeapps/config.toml")


def interrupted(machine, uri, progress, wait_for_apps):
    """Update to ``uri``, cut the power while it is fetched, boot again; return what is left to tell.

    Arguments:
        machine: the logged-in Machine, its apps running.
        uri: the pinned reference of the release.
        progress: a fastlane.progress.Progress.
        wait_for_apps: called with no argument, returns when the device has started its apps after a boot.

    Raises DemoError when the device does not end with the release.
    """
    redis = _container(machine, "redis")
    with progress.step("the device begins an update; the power is cut while it fetches"):
        machine.run(f"systemd-run --quiet --unit {UNIT} composeapps update {shlex.quote(uri)} --limit {LIMIT}")
        kept = int(machine.run(
            "until set -- $(stat --format %s /var/sota/reset-apps/ingest/*.part 2>/dev/null) && "
            f"n=0 && for size; do n=$((n + size)); done && [ $n -ge 600000 ] || ! systemctl is-active --quiet {UNIT}; "
            "do sleep 0.2; done; echo $n", timeout=300).stdout.strip() or 0)
        if kept < 600000:
            raise DemoError("the update ended before the power was cut: " + _last_words(machine, UNIT))
        machine.power_cut()
    with progress.step("it boots again and starts what it had"):
        machine.start()
        wait_for_apps()
    with progress.step("it fetches the rest and switches to the new release"):
        machine.run("systemctl start composeapps-update.service", timeout=900)
    if _installed(machine) != uri:
        raise DemoError("the device did not finish the update: " + _last_words(machine, "composeapps-update.service"))
    log = machine.run("journalctl --boot --no-pager --output cat --unit composeapps-update.service").stdout.splitlines()
    return {"kept_bytes": kept, "log": log, "page": device.fetch(machine, WEB).strip(),
            "redis_before_and_after": [redis, _container(machine, "redis")]}


def taken_back(machine, uri, progress):
    """Update to the broken release ``uri`` with the network down; return what the device said.

    It is fetched first, and is nothing that the device could tell from a good one until it runs.
    Raises DemoError when the release before does not run again.
    """
    before, redis = _installed(machine), _container(machine, "redis")
    with progress.step("the device fetches a release that is broken"):
        machine.run(f"composeapps pull {shlex.quote(uri)}", timeout=300)
    with progress.step("it installs it with the network down, and takes it back"):
        machine.set_link(False)
        # By default a service gets five minutes to become well.
        machine.run("sed -i '/^.composeapps.$/a health_timeout = 60' /etc/composeapps/config.toml")
        done = machine.run(f"composeapps update {shlex.quote(uri)}", timeout=900, check=False)
    if done.exit_status != ROLLED_BACK or _installed(machine) != before or _container(machine, "redis") != redis:
        raise DemoError(f"the broken release was not taken back (status {done.exit_status}): "
                        + " ".join(done.stdout.splitlines()[-1:]))
    return {"log": done.stdout.splitlines(), "page": device.fetch(machine, WEB).strip(),
            "history": machine.run("composeapps history", timeout=60).stdout.splitlines()}


def _installed(machine):
    apps = json.loads(machine.run("composeapps ps --json", timeout=60, check=False).stdout)
    return next(app["uri"] for app in apps if app["name"] == "web")


def _container(machine, service):
    apps = json.loads(machine.run("composeapps ps --json", timeout=60, check=False).stdout)
    return next(one["container"] for app in apps if app["name"] == "web" for one in app["services"]
                if one["name"] == service)


def _last_words(machine, unit):
    log = machine.run(f"journalctl --no-pager --output cat --unit {unit} | tail -n 12", check=False).stdout
    return log.strip().replace("\n", "; ") or "it said nothing"
