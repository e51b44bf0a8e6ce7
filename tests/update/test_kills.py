# SPDX-License-Identifier: MIT
"""A sample of scripts/kill-test: kills at some steps and at some random moments."""

import pytest

from composeapps.records import journal
from kills.campaign import Campaign

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def campaign(device, publisher):
    return Campaign(device, publisher, seed=5)


def test_killed_anywhere_an_app_is_the_old_or_the_new_version_after_the_next_run(campaign):
    for operation, step, moment in (
            ("update", journal.VERIFYING, "after"), ("rollback", journal.COMMITTED, "between"),
            ("broken", journal.ROLLING_BACK, "after")):
        campaign.at_step(operation, step, moment)
    campaign.at_random(3)
    assert not campaign.failed, "\n".join(kill.line() for kill in campaign.kills)
    assert campaign.summary() == "kills=6 mixed=0 down=0"
