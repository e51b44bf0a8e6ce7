# SPDX-License-Identifier: MIT
"""composeapps identity: a key of the device's own, the request for a certificate, and the certificate that answers."""

import json
import subprocess

import pytest

from composeapps.cli import main


@pytest.fixture
def identity(tmp_path, capsys):
    """A function that runs the command; returns (exit status, standard output, standard error)."""
    (tmp_path / "config.toml").write_text(f'[composeapps]\nidentity_dir = "{tmp_path}/sota"\n')

    def run(*words):
        status = main.main(["--config", str(tmp_path / "config.toml"), "identity", *map(str, words)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def sign(request, directory):
    """Return the certificate (a file) that an authority, ca.pem, gives for a request."""
    (directory / "csr").write_text(request)
    for words in (("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=ca",
                   "-keyout", "ca.key", "-out", "ca.pem"),
                  ("x509", "-req", "-in", "csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-out", "answer.pem")):
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)
    return directory / "answer.pem"


def test_a_key_its_request_and_the_certificate_that_answers(identity, tmp_path):
    status, out, _err = identity("--json")
    assert status == 0 and not json.loads(out)["key"] and json.loads(out)["device"] == ""
    assert identity("--csr")[0] == 3
    assert identity("--new-key")[0] == 2
    assert identity("--new-key", "--device", "shop-1")[0] == 0
    key = (tmp_path / "sota/pkey.pem").read_text()
    assert (tmp_path / "sota/pkey.pem").stat().st_mode & 0o777 == 0o600
    status, request, _err = identity("--csr", "--unit", "shop")
    assert status == 0 and "PRIVATE" not in request
    answer = sign(request, tmp_path)
    assert identity("--certificate", answer, "--authority", tmp_path / "ca.pem")[0] == 0
    found = json.loads(identity("--json")[1])
    assert found["device"] == "shop-1" and found["problem"] == "" and found["not_after"] > found["not_before"]
    assert found["key"] and found["certificate"] and found["authority"]
    # Nobody loses a key by accident, and a new one has no old certificate.
    assert identity("--new-key")[0] == 2 and (tmp_path / "sota/pkey.pem").read_text() == key
    assert identity("--new-key", "--replace")[0] == 0
    assert (tmp_path / "sota/pkey.pem").read_text() != key and not (tmp_path / "sota/client.pem").exists()
    status, _out, err = identity("--certificate", answer)
    assert status == 2 and "cannot be used together" in err and not (tmp_path / "sota/client.pem").exists()


def test_what_does_not_fit_is_told(identity, tmp_path):
    identity("--new-key", "--device", "shop-1")
    (tmp_path / "sota/client.pem").write_text("no certificate")
    assert "cannot be read" in json.loads(identity("--json")[1])["problem"]


def test_damage_to_what_the_device_has_is_told(identity, tmp_path):
    identity("--new-key", "--device", "shop-1")
    answer = sign(identity("--csr")[1], tmp_path)
    assert identity("--certificate", answer)[0] == 0
    (tmp_path / "sota/pkey.pem").write_bytes(b"\xff" * 200)
    assert "pkey.pem is damaged" in json.loads(identity("--json")[1])["problem"]
    status, _out, err = identity("--certificate", answer)
    assert (status, err.count("\n")) == (4, 1) and "pkey.pem is damaged" in err


@pytest.mark.parametrize("words", [
    ("--device", "a"), ("--unit", "a"), ("--new-key", "--device", "a/b"), ("--certificate", "/nonexistent"),
    ("--authority", "/dev/null"), ("--new-key", "--device", "a", "--csr", "--unit", "x/CN=y"),
])
def test_what_is_refused_is_one_sentence(identity, words):
    status, _out, err = identity(*words)
    assert status in (2, 3) and err.count("\n") == 1
