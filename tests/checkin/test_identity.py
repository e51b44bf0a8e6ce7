# SPDX-License-Identifier: MIT
"""Enrolment and renewal: what a cut at any step leaves is an identity that the server takes."""

import json
import stat
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from composeapps import durable
from composeapps.cli.main import main
from composeapps.delivery import renewal
from composeapps.delivery.gateway import Gateway
from composeapps.disk import certify, provision, x509
from composeapps.errors import UsageError
from composeapps.records import reports
from composeapps.registry.failures import Unavailable
from support import pki
from support.updateserver import drop, status


@pytest.fixture
def fresh(tmp_path, server, factory):
    """Run the command on a device without an identity; ``.directory`` is where it comes."""
    (tmp_path / "ca.pem").write_text(factory.root.pem)
    (tmp_path / "token").write_text(server.token + "\n")
    (tmp_path / "login").write_text(f"device:{server.token}\n")
    (tmp_path / "config.toml").write_text(f'[composeapps]\nidentity_dir = "{tmp_path}/fresh"\n')

    def enroll(*words, token="token"):
        return main(["enroll", "--config", str(tmp_path / "config.toml"), "--authority", str(tmp_path / "ca.pem"),
                     "--token", str(tmp_path / token), *words])

    enroll.directory = tmp_path / "fresh"
    return enroll


def _lets_in(config, directory):
    with Gateway(config._replace(identity_dir=directory)) as gateway:
        return gateway.get("device", "this device").status == 200


def test_a_device_registers_at_an_update_server(fresh, server, config, capsys):
    words = ("--server", server.url, "--unit", "testfactory", "--device", "device-7")
    assert fresh(*words, "--json") == 0
    found = capsys.readouterr()
    assert json.loads(found.out)["device"] == "device-7" and not json.loads(found.out)["problem"]
    assert server.token not in found.out + found.err
    assert _lets_in(config, fresh.directory)
    assert {stat.S_IMODE(path.stat().st_mode) for path in fresh.directory.iterdir()} == {0o600}
    # What the server's settings say is the device's from now on.
    assert 'tags = "main"' in (fresh.directory / provision.SETTINGS).read_text()
    # Once more: the server knows the name already.
    (fresh.directory / provision.CERTIFICATE).unlink()
    key = (fresh.directory / provision.KEY).read_bytes()
    assert fresh(*words) == 5
    assert "knows a device of this name" in capsys.readouterr().err
    assert fresh("--server", server.url, "--unit", "testfactory", "--device", "device-8") == 0
    assert (fresh.directory / provision.KEY).read_bytes() == key


def test_a_device_enrolls_at_an_est_server(fresh, server, config, capsys):
    words = ("--est", "--server", f"{server.url}/.well-known/est", "--unit", "testfactory")
    assert fresh(*words, token="login") == 0
    assert _lets_in(config, fresh.directory)
    name = provision.known(fresh.directory).device
    assert len(name) == 36
    assert x509.read((fresh.directory / provision.CERTIFICATE).read_text()).units == ("testfactory",)
    assert server.token not in capsys.readouterr().err
    server.misbehave("simpleenroll", status(202, "wait"))
    assert fresh(*words, token="login") == 5 and "ask again later" in capsys.readouterr().err


@pytest.mark.parametrize("words, text", [
    ((), "give the server by --server"),
    (("--server", "http://example.com", "--unit", "f"), "has to have an https address"),
    (("--server", "https://a:b@example.com", "--unit", "f"), "has a login or a query in it"),
    (("--server", "https://example.com/?token=x", "--unit", "f"), "has a login or a query in it"),
    (("--server", "https://localhost:1"), "give the factory's name by --unit"),
    (("--server", "https://localhost:1", "--unit", "a/b"), "the factory's name 'a/b' is none"),
    (("--server", "https://localhost:1", "--unit", "f", "--device", "../x"), "the device's name '../x' is none"),
], ids=range(7))
def test_what_makes_no_sense_is_refused_before_anything_is_made(fresh, words, text, capsys):
    assert fresh(*words) == 2
    assert text in capsys.readouterr().err and not fresh.directory.exists()


@pytest.mark.parametrize("answer, text", [
    (status(201, "nonsense"), "registration server's answer"),
    (status(201, "{}"), "has not the files"),
    (status(201, json.dumps({"root.crt": "x", "client.pem": "y"})), "certificate"),
    (status(403, "no"), "does not let this device in"),
    (status(502, "away"), "away"),
    (drop, "failed on the registration"),
], ids=range(6))
def test_a_registration_that_goes_wrong_leaves_no_certificate(fresh, server, answer, text, capsys):
    server.misbehave("/v1/devices", answer)
    words = ("--server", server.url, "--unit", "testfactory", "--device", "device-7")
    assert fresh(*words) in (2, 4, 5)
    told = capsys.readouterr().err
    assert text in told and "Traceback" not in told and server.token not in told
    assert not (fresh.directory / provision.CERTIFICATE).exists()
    server.behave()
    assert fresh(*words) == 0


def test_another_devices_certificate_is_not_taken(fresh, server, factory, capsys):
    other = ec.generate_private_key(ec.SECP256R1())
    for certificate in (factory.devices.device("device-7", other.public_key()),):
        server.misbehave("/v1/devices", status(201, json.dumps({"root.crt": factory.root.pem,
                                                                "client.pem": certificate})), times=1)
        assert fresh("--server", server.url, "--unit", "testfactory", "--device", "device-7") == 2
    assert not (fresh.directory / provision.CERTIFICATE).exists()


class Renewing:
    """A device whose certificate ends soon; ``renew`` takes the renewal as far as it goes."""

    def __init__(self, config, server, factory, **settings):
        self.server, self.directory, self.told = server, config.identity_dir, []
        self.key = factory.identity(self.directory, "device-1", after=5 * pki.DAY)
        self.config = config._replace(renewal_server=f"{server.url}/.well-known/est", **settings)
        self.reporter = reports.Reporter(config.state_dir, self.told.append)
        # The server knows the device by its key.
        assert _lets_in(self.config, self.directory)

    def renew(self):
        return renewal.renew(self.config, 0, self.reporter, self.told.append)

    def is_due(self):
        return renewal.is_due(self.config, pki.now())

    def days(self):
        return (renewal.ends(self.directory) - pki.now()).days

    def events(self):
        return [(each["eventType"]["id"], each["event"].get("success"))
                for each in reports.waiting(self.config.state_dir)]

    def left(self):
        return {path.name for path in self.directory.iterdir()} - set(provision.NAMES)


@pytest.fixture
def renewing(config, server, factory):
    return lambda **settings: Renewing(config, server, factory, **settings)


def test_a_certificate_is_renewed_for_the_same_key(renewing):
    device = renewing()
    assert device.is_due()
    assert device.renew()
    assert device.days() > 3000 and not device.is_due() and device.left() == set()
    assert pki.public(pki.key_of(device.directory)) == pki.public(device.key)
    assert _lets_in(device.config, device.directory)
    assert device.events()[0] == (reports.ROTATION_STARTED, True)
    assert device.events()[-1] == (reports.ROTATION_COMPLETED, True)
    correlations = {each["event"]["correlationId"] for each in reports.waiting(device.config.state_dir)}
    assert len(correlations) == 1 and correlations.pop().startswith("certs-")


def test_a_gateway_that_knows_devices_by_their_key_keeps_the_old_one(renewing):
    device = renewing(renewal_new_key=True)
    assert not device.renew()
    assert device.days() < 6 and pki.public(pki.key_of(device.directory)) == pki.public(device.key)
    assert _lets_in(device.config, device.directory)
    assert device.events()[-1] == (reports.ROTATION_COMPLETED, False)
    assert any("Key rotation is not supported" in text for text in device.told)
    # It is not asked for again at each check-in, and is after a day.
    assert not device.is_due() and renewal.is_due(device.config, pki.now() + 2 * pki.DAY)
    assert device.left() == {renewal.JOURNAL}


def test_elsewhere_the_key_is_new(renewing, server):
    device = renewing(renewal_new_key=True)
    # Another gateway takes any key that the CA has signed for.
    server.devices.clear()
    assert device.renew()
    assert pki.public(pki.key_of(device.directory)) != pki.public(device.key)
    assert _lets_in(device.config, device.directory) and device.left() == set()


class _Cut(BaseException):
    pass


@pytest.mark.parametrize("new_key", [False, True])
def test_a_cut_at_each_step_leaves_an_identity_that_is_let_in(renewing, server, new_key, monkeypatch):
    """Each rename and each removal is a step; after a cut at each of them the device still gets to the gateway."""
    real_replace, real_remove = durable.replace, durable.remove_file
    number = 0
    while True:
        server.devices.clear()
        device = renewing(renewal_new_key=new_key)
        if new_key:
            server.devices.clear()
        left = [number]

        def cutting(real, left=left, directory=device.directory):
            def step(*args, **options):
                if Path(args[1] if real is real_replace else args[0]).parent == directory:
                    if not left[0]:
                        raise _Cut
                    left[0] -= 1
                return real(*args, **options)

            return step

        monkeypatch.setattr(durable, "replace", cutting(real_replace))
        monkeypatch.setattr(durable, "remove_file", cutting(real_remove))
        try:
            device.renew()
            cut = False
        except _Cut:
            cut = True
        monkeypatch.setattr(durable, "replace", real_replace)
        monkeypatch.setattr(durable, "remove_file", real_remove)
        if not cut:
            break
        # A boot, with no network.
        renewal.resume(device.directory)
        certify.check_pair((device.directory / "pkey.pem").read_text(), (device.directory / "client.pem").read_text())
        if new_key:
            server.devices.clear()
        assert _lets_in(device.config, device.directory), number
        if new_key:
            server.devices.clear()
        if device.is_due():
            assert device.renew(), number
        assert device.days() > 3000 and not device.is_due(), number
        provision.forget(device.directory, renewal.JOURNAL)
        number += 1
    assert number >= (7 if new_key else 6)


def test_damage_of_the_journal_puts_a_half_placed_pair_right(renewing, server, factory):
    device = renewing(renewal_new_key=True)
    key = ec.generate_private_key(ec.SECP256R1())
    provision.put(device.directory, provision.KEY, pki.pem(key))
    provision.put(device.directory, renewal.NEW_CERTIFICATE, factory.devices.device("device-1", key.public_key()))
    (device.directory / renewal.JOURNAL).write_text("{")
    renewal.resume(device.directory)
    server.devices.clear()
    assert _lets_in(device.config, device.directory)


@pytest.mark.parametrize("answer", [status(200, "nonsense"), status(200, ""), status(400, "no"), status(403, "no")],
                         ids=range(4))
def test_an_est_server_that_answers_nonsense_costs_nothing(renewing, server, answer):
    device = renewing()
    server.misbehave("simplereenroll", answer)
    assert not device.renew()
    assert device.days() < 6 and _lets_in(device.config, device.directory) and not device.is_due()
    assert device.events()[-1] == (reports.ROTATION_COMPLETED, False)


def test_a_server_that_is_away_is_asked_again_at_the_next_check_in(renewing, server):
    device = renewing()
    for path in ("simplereenroll", "/device"):
        server.misbehave(path, status(503, "later"))
        with pytest.raises(Unavailable):
            device.renew()
        server.behave()
        assert device.is_due() and _lets_in(device.config, device.directory)
    assert device.renew() and device.days() > 3000


def test_a_certificate_that_ends_no_later_is_not_taken(renewing, server):
    device = renewing()
    server.est_days = 1
    assert not device.renew() and any("ends no later" in text for text in device.told)


def test_authorities_are_exchanged_when_the_gateway_is_known_by_the_new_ones(renewing, server, factory, monkeypatch):
    device = renewing()
    old = (device.directory / provision.AUTHORITY).read_text()
    other = pki.Authority("other-root")
    with monkeypatch.context() as changed:
        changed.setattr(factory.root, "certificate", other.certificate)
        assert device.renew()
    # The gateway's certificate is not that one's.
    assert (device.directory / provision.AUTHORITY).read_text() == old
    assert _lets_in(device.config, device.directory)


def test_a_renewal_is_due_by_the_certificate_and_the_clock(renewing, config):
    device = renewing()
    assert not renewal.is_due(config, pki.now()), "without a server there is nobody to ask"
    assert not renewal.is_due(device.config._replace(renewal_days=2), pki.now())
    (device.directory / provision.CERTIFICATE).write_text("nonsense")
    assert renewal.ends(device.directory) is None and not device.is_due()
    (device.directory / renewal.JOURNAL).write_text(json.dumps({"step": "waiting", "id": "x", "since": time.time()}))
    assert not device.is_due()
    # A clock that went back to 1970.
    assert renewal.is_due(device.config, pki.now() - 20000 * pki.DAY)


def test_certificates_are_read_from_what_is_nothing_else():
    with pytest.raises(UsageError):
        certify.certificates(b"nonsense")
