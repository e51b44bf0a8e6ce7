# SPDX-License-Identifier: MIT
"""Figures about the device in the text format of Prometheus
(https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4).
"""

import time

from composeapps import __version__
from composeapps.delivery import record, renewal
from composeapps.delivery.memory import Memory
from composeapps.records import journal, rejection, reports
from composeapps.records.state import StateDirectory


def render(config):
    """Return the figures of the device that has a Config, as a text. What cannot be found out is left out."""
    from composeapps.status import report

    states, found = StateDirectory(config.state_dir), report.collect(config)
    lines = []

    def add(name, kind, text, samples):
        samples = [(labels, value) for labels, value in samples if value is not None]
        if samples:
            lines.append(f"# HELP composeapps_{name} {text}")
            lines.append(f"# TYPE composeapps_{name} {kind}")
            lines.extend(f"composeapps_{name}{_labels(labels)} {_number(value)}" for labels, value in samples)

    target, version, _tag = record.installed(states)
    add("info", "gauge", "The agent's version.", [({"version": __version__}, 1)])
    add("ok", "gauge", "Whether what should run on this device runs.", [({}, found["ok"])])
    add("target_version", "gauge", "Version of the factory's Target that is installed.",
        [({"target": target}, version)] if target else [])
    add("app_ok", "gauge", "Whether an app is as it should be.",
        [({"app": app["name"], "digest": app["digest"]}, app["ok"]) for app in found["apps"]])
    add("app_rejected_versions", "gauge", "Versions of an app that failed too often.",
        [({"app": app["name"]}, len(app["rejected"])) for app in found["apps"]])
    services = [(app["name"], each) for app in found["apps"] for each in app["services"]]
    add("service_up", "gauge", "Whether a service runs as it should.",
        [({"app": app, "service": each["name"], "state": each["state"]}, each["ok"]) for app, each in services])
    pending = journal.pending(states)
    add("updates_unfinished", "gauge", "Updates that have not come to their end.", [({}, len(pending))])
    add("update_started_timestamp_seconds", "gauge", "When an update that is under way was begun.",
        [({"app": each.app, "step": each.step}, each.started) for each in pending])
    add("failures", "gauge", "Failures of a version, as they count towards its rejection.",
        [({"uri": each.uri}, each.count) for each in rejection.failures(states).values()])
    if config.server:
        memory, end = Memory(config.state_dir), renewal.ends(config.identity_dir)
        add("checkin_failures", "gauge", "Check-ins in a row that came to nothing, since the boot.",
            [({}, memory.get("failures") or 0)])
        add("checkin_wait_seconds", "gauge", "Seconds until the next check-in after those that failed.",
            [({}, memory.wait())])
        add("checkin_last_success_timestamp_seconds", "gauge", "When the server was reached last, since the boot.",
            [({}, memory.get("reached"))])
        add("events_waiting", "gauge", "Events that the factory was not told yet.",
            [({}, len(reports.waiting(states.root)))])
        add("certificate_end_timestamp_seconds", "gauge", "When the device's certificate ends.",
            [({}, end.timestamp() if end else None)])
    add("time_seconds", "gauge", "When these figures were made, by the device's clock.", [({}, time.time())])
    return "\n".join(lines) + "\n"


def _labels(labels):
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(text):
    return str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value):
    return f"{float(value):.15g}"
