# SPDX-License-Identifier: MIT
"""An update of an app by hand is reported to the factory, as events in a queue; without a server nothing is kept."""

import pytest

from composeapps.records import journal, reports
from support.updating import SICK, WELL, service

pytestmark = pytest.mark.root
DELIVERY = '[delivery]\nserver = "https://gateway.invalid:8443"\nunsigned = true\n'
GOOD = [reports.INIT_STARTED, reports.INIT_COMPLETED, reports.DOWNLOAD_STARTED, reports.DOWNLOAD_COMPLETED,
        reports.INSTALLATION_STARTED, reports.APPLIED, reports.INSTALLATION_COMPLETED]


@pytest.fixture
def told(device):
    device.configure(DELIVERY, health_timeout=15)
    yield lambda: [(each["eventType"]["id"], each["event"].get("success")) for each in reports.waiting(
        device.states.root)]
    reports.told(device.states.root, reports.waiting(device.states.root))


def test_each_step_is_told_and_a_failure_with_its_reason(device, run, name, publisher, told, no_registry):
    first, second = (publisher.version(name, {"web": service(number, healthcheck=check)})
                     for number, check in (("1", WELL), ("2", SICK)))
    assert run("update", first)[0] == 0
    assert [kind for kind, _success in told()] == GOOD and told()[-1] == (reports.INSTALLATION_COMPLETED, True)
    events = reports.waiting(device.states.root)
    assert len({each["event"]["correlationId"] for each in events}) == 1
    assert {each["event"]["targetName"] for each in events} == {first}
    reports.told(device.states.root, events)

    assert run("update", second)[0] == 14
    assert [kind for kind, _success in told()] == GOOD and told()[-1] == (reports.INSTALLATION_COMPLETED, False)
    assert "unhealthy" in reports.waiting(device.states.root)[-1]["event"]["details"]
    reports.told(device.states.root, reports.waiting(device.states.root))

    # Without a registry the download fails, and goes on under the same id.
    third = publisher.version(name, {"web": service("3", healthcheck=WELL)})
    no_registry()
    assert run("update", third)[0] == 5
    failed = reports.waiting(device.states.root)
    assert told() == [] or told()[-1] == (reports.DOWNLOAD_COMPLETED, False)
    assert all(each["event"]["targetName"] == third for each in failed)
    journal.remove(device.states, name)


def test_without_a_server_nothing_is_kept(device, run, name, publisher):
    version = publisher.version(name, {"web": service("1", healthcheck=WELL)})
    assert run("update", version)[0] == 0
    assert not reports.are_waiting(device.states.root)
