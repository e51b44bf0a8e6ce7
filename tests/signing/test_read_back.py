# SPDX-License-Identifier: MIT
"""What a factory publishes, as this program's own devices read it."""

import json

from composeapps.delivery import refresh, selection
from composeapps.delivery.stored import Stored
from composeapps.signing import documents as docs
from composeapps.signing import keys
from composeapps.signing.repository import Repository


class Own:
    """A device of this program, from the first root on; ``told`` is what it noted."""

    def __init__(self, place, repository):
        self._place, self._repository, self.told, self.asked = place, repository, [], []
        (place / "seeds").mkdir(parents=True)
        (place / "seeds" / "1.root.json").write_bytes((repository / "1.root.json").read_bytes())

    def _fetch(self, name, limit):
        self.asked.append(name)
        path = self._repository / name
        return path.read_bytes()[:limit + 1] if path.exists() else None

    def refresh(self):
        """Return {name: Target} of all that it believes."""
        stored = Stored(self._place / "state", self._place / "seeds", "main", self.told.append)
        return {each.name: each for each in refresh.refresh(stored, self._fetch, self.told.append).targets}

    def choose(self, *tags):
        """Return the name of what a device of tags takes."""
        found = selection.choose(self.refresh().values(), "pc", tags)
        return found.name if found else None


def test_a_device_follows_what_a_factory_does(factory, tmp_path):
    device = Own(tmp_path / "own", factory.repository)
    factory.create()
    assert device.choose("main") == "shop-1"
    ci = factory.key("ci")
    factory.do("wave", "canary", "--wave-key", ci, "--tag", "canary")
    factory.create("--wave", "canary")
    assert (device.choose("main"), device.choose("canary")) == ("shop-1", "shop-2")
    factory.do("promote", "shop-2", "--tag", "main", "--drop-tag", "canary")
    assert (device.choose("main"), device.refresh()["shop-2"].role) == ("shop-2", "targets")
    factory.do("rotate", "root", "--add", factory.key("root2"), "--remove", factory.keys / "root.pub")
    factory.do("revoke", "--stolen", factory.keys / "online.pub", "--add", factory.key("online2"))
    factory.do("rotate", "targets", "--add", factory.key("targets2"), "--remove", factory.keys / "targets.pub")
    factory.do("wave", "canary", "--remove")
    factory.do("revoke", "shop-2")
    assert device.choose("main") == "shop-1"
    assert Own(tmp_path / "late", factory.repository).choose("main") == "shop-1"
    factory.do("renew")
    device.asked.clear()
    assert device.choose("main") == "shop-1" and device.choose("main") == "shop-1"
    assert device.asked.count("timestamp.json") == 2 and device.told == []


def test_the_keys_of_a_wave_sign_for_no_other_tags(factory, tmp_path):
    """By this program's commands they do not, so somebody who has them does it by hand."""
    device = Own(tmp_path / "own", factory.repository)
    factory.do("wave", "canary", "--wave-key", factory.key("ci"), "--tag", "canary")
    factory.create()
    factory.create("--wave", "canary")
    factory.create("--wave", "canary")
    repository = Repository(factory.repository)
    state, signing = repository.read(), keys.find_all([], [factory.keys], keys.PassPhrases())
    forged = docs.next_of(state.waves["canary"], 365, docs.clock(state))
    custom = forged.signed.targets["shop-3"].unrecognized_fields["custom"]
    custom["tags"] = ["canary", "main"]
    docs.sign(state, {"canary": forged}, signing)
    repository.publish(state, {"canary": forged}, signing, docs.clock(state))
    assert json.loads((factory.repository / "4.canary.json").read_bytes())["signed"]["targets"]["shop-3"]
    assert (device.choose("main"), device.choose("canary")) == ("shop-1", "shop-2")
    # The second time all of it is known.
    assert set(device.refresh()) == {"shop-1", "shop-2"}
