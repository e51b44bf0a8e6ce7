# SPDX-License-Identifier: MIT
"""The user network: forwards on free ports, the link, what the guest can reach."""

import http.client
import http.server
import socket
import threading

import pytest

from emulator import EmulatorError

pytestmark = pytest.mark.qemu


def get(port, timeout=60):
    """Return what the guest's web server answers at / on ``port`` of 127.0.0.1."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", "/index.html")
        return connection.getresponse().read()
    finally:
        connection.close()


def serve(machine, text):
    machine.run(f"mkdir -p /tmp/www; printf {text} >/tmp/www/index.html; httpd -p 80 -h /tmp/www")


@pytest.fixture(scope="module")
def online(new_machine):
    """A machine on the network with a web server on its port 80."""
    with new_machine(network="user") as machine:
        serve(machine, "hello")
        yield machine


@pytest.fixture(scope="module")
def host_port():
    """The port of a web server of the host, on 127.0.0.1, that answers "the host"."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"the host")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_forward_takes_a_free_port_that_reaches_the_guest(online):
    first = online.forward(80)
    assert get(first) == b"hello"
    assert online.port(80) == first
    online.remove_forward(80)
    with pytest.raises(ConnectionRefusedError):
        get(first)
    with pytest.raises(EmulatorError, match="port 80 of the guest is not forwarded"):
        online.port(80)


def test_two_machines_get_two_ports(online, new_machine):
    with new_machine(network="user", restrict=True) as other:
        serve(other, "other")
        ports = online.forward(80), other.forward(80)
        assert [get(port) for port in ports] == [b"hello", b"other"]
    online.remove_forward(80)


def test_a_wanted_port_is_taken_or_refused(online):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmulatorError, match=f"cannot forward port {port} of 127.0.0.1"):
            online.forward(80, port)
    assert online.forward(80, port) == port
    assert get(port) == b"hello"
    online.remove_forward(80)


def test_pulling_the_cable_cuts_the_guest_off_until_it_is_plugged_in(online):
    port = online.forward(80)
    assert get(port) == b"hello"
    online.set_link(False)
    assert online.run("cat /sys/class/net/eth0/carrier").stdout == "0\n"
    with pytest.raises((OSError, http.client.HTTPException)):
        get(port, timeout=2)
    online.set_link(True)
    assert get(port) == b"hello"
    assert online.run("cat /sys/class/net/eth0/carrier").stdout == "1\n"
    online.remove_forward(80)


def test_the_guest_reaches_the_host(online, host_port):
    assert online.run(f"wget -q -O - http://10.0.2.2:{host_port}/", timeout=60).stdout == "the host"


def test_a_restricted_guest_reaches_nothing_but_is_reached_also_after_a_power_cut(new_machine, host_port):
    with new_machine(network="user", restrict=True) as machine:
        done = machine.run(f"timeout 3 wget -q -O - http://10.0.2.2:{host_port}/", timeout=60, check=False)
        assert done.exit_status != 0
        assert done.stdout != "the host"
        machine.forward(80)
        machine.power_cut()
        machine.start()
        serve(machine, "again")
        assert get(machine.port(80)) == b"again"


def test_without_a_network_there_is_no_card_and_no_forward(vm):
    assert vm.run("ls /sys/class/net").stdout == "lo\n"
    with pytest.raises(EmulatorError, match="network='user'"):
        vm.forward(80)


def test_an_unknown_network_is_refused(new_machine):
    with pytest.raises(EmulatorError, match="'bridge' is not known"):
        new_machine(network="bridge")
