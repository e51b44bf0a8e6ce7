# SPDX-License-Identifier: MIT
"""What the exit statuses mean. Which error has which is in composeapps.errors."""

STATUSES = {
    0: "done; of 'status' and 'ps': what should run runs",
    1: "failure of another kind",
    2: "wrong usage or bad input",
    3: "an app, blob or image is missing",
    4: "data is damaged",
    5: "the registry failed or cannot be reached",
    6: "dockerd or docker compose failed",
    7: "the file system refused (full, read-only, no permission)",
    8: "a service is not running as it should; of 'status': something is not well",
    9: "another composeapps is at work",
    10: "of 'fsck': dockerd's store was damaged and is repaired",
    11: "of 'fsck': dockerd is at work on its store",
    12: "a file system lacks the room that is needed; nothing was begun",
    13: "a container holds its update lock",
    14: "the update failed and the version before it runs again",
    15: "the version failed too often and is rejected",
    16: "the update is unfinished; the next run goes on with it",
    17: "what the factory's server gives is not believed",
    130: "interrupted",
}
# Any of the agent's commands may end with these: 7 comes from whatever the system says of a file.
ALWAYS = {0: "done", 2: None, 7: None, 130: None}


def explained(exits):
    """Return {exit status: text}, with the text of STATUSES where ``exits`` has None."""
    return {number: text or STATUSES[number] for number, text in exits.items()}
