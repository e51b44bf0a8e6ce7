# SPDX-License-Identifier: MIT
"""What a device comes back from: the disk's own systemd, dockerd and agent, from start to start.

One device, whose disk is a loop device, booted in namespaces of this machine (support/containerboot.py).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from demonstration import device as demo
from emulator.apps import wait_for_apps
from support.containerboot import ContainerDevice

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

TOP = Path(__file__).resolve().parents[2]
MORE = 3 << 30
PAGE = "http://127.0.0.1:8080/"
GIVEN = ("--device", "shop-0001", "--serial", "A1B2C3", "--new-key", "--setting", "soak_time=7")


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """A device that was provisioned and not started yet."""
    done = subprocess.run([sys.executable, TOP / "scripts" / "demo", "--disk", "--no-boot", "--json"], text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    path = Path(json.loads(done.stdout)["image"])
    told = json.loads(path.read_text())
    # In memory: what is tried here is not what a power cut leaves of a disk's writes.
    directory = tmp_path_factory.mktemp("disk")
    disk = Path("/dev/shm", f"composeapps-{os.getpid()}.wic")
    subprocess.run(["cp", "--sparse=always", path.parent / told["disk"], disk], check=True)
    try:
        # As far as a growth had come whose power was cut: the copy of the table is at the end already.
        os.truncate(disk, disk.stat().st_size + MORE)
        subprocess.run(["/usr/sbin/sfdisk", "-q", "--relocate", "gpt-bak-std", disk], check=True, capture_output=True)
        subprocess.run([sys.executable, TOP / "scripts" / "provision", disk, "--in-place", *GIVEN], check=True,
                       capture_output=True)
        with ContainerDevice(disk, [part["name"] for part in told["partitions"]], directory) as device:
            yield device
    finally:
        disk.unlink(missing_ok=True)


def started(device):
    """See that the device starts its apps, and that one answers."""
    wait_for_apps(device, lambda line: None)
    assert "Hello from a restorable compose app" in demo.fetch(device, PAGE)


def restarted(device):
    device.power_cut()
    device.start()


def said(device, unit="composeapps-data.service"):
    # The unit may be at work still.
    device.run(f"systemctl start {unit}", check=False)
    return device.run(f"journalctl --boot --no-pager --output cat _SYSTEMD_UNIT={unit}").stdout


def reset(device, keep):
    """Reset the device, which has something to keep and something to lose, and start it; return what status tells."""
    device.run("docker volume create mine && echo row > /var/lib/docker/volumes/mine/_data/row && "
               "echo photo > /var/sota/compose-apps/web/photo && echo other > /var/other", timeout=60)
    device.run(f"composeapps factory-reset --keep {keep} --yes --no-reboot", timeout=120)
    restarted(device)
    assert "factory reset done" in said(device)
    told = json.loads(device.run("composeapps status --json", check=False).stdout)["factory_reset"]
    assert (told["kept"], told["lost"]) == (keep, "")
    assert device.run("ls /var/other", check=False).exit_status


def identity(device):
    return device.run("cat /run/ssh/ssh_host_rsa_key /var/sota/pkey.pem /var/sota/device.json /etc/machine-id "
                      "/var/sota/composeapps.toml").stdout


def there(device, *paths):
    """Return which of some paths exist on the device."""
    return [path for path in paths if not device.run(f"test -e {path}", check=False).exit_status]


def test_the_first_start_ends_a_growth_that_was_cut_off_and_takes_over_what_the_device_was_given(device):
    device.start()
    assert "the data partition" in said(device) and device.run(
        f"blockdev --getsize64 {device.partition('data')}").stdout.strip() > str(MORE)
    assert "took over composeapps.toml" in said(device, "composeapps-provision.service")
    assert device.run("stat -c '%a %U' /var/sota/pkey.pem").stdout == "600 root\n"
    assert "composeapps.soak_time = 7" in device.run("cat /var/sota/composeapps.toml").stdout
    # The signing request is the key's, and lies where a fixture finds it.
    device.run("mkdir /run/boot && mount -o ro " + device.partition("boot") + " /run/boot")
    assert device.run("openssl req -in /run/boot/shop-0001.csr -noout -subject").stdout.split("=", 1)[1].replace(
        " ", "") == "CN=shop-0001\n"
    assert device.run("openssl req -in /run/boot/shop-0001.csr -noout -pubkey").stdout == device.run(
        "openssl pkey -in /var/sota/pkey.pem -pubout").stdout
    device.run("umount /run/boot")
    # As sshd does, which the image does not have, where the root file system is read-only.
    device.run("umask 077; echo this device > /run/ssh/ssh_host_rsa_key")
    # What is left in the area is the serial number.
    left = device.run(f"tr -d '\\0' < {device.partition('provision')} | tail -c 64").stdout
    assert left.endswith('{"serial":"A1B2C3"}') and "PRIVATE" not in left
    started(device)


def test_every_byte_is_checked(device):
    result = device.run("composeapps check --json", timeout=300)
    checked = json.loads(result.stdout)
    assert [app["ok"] for app in checked] == [True, True] and all(app["installed"] for app in checked)


def test_a_damaged_blob_is_found(device):
    blob = device.run("ls -S /var/sota/reset-apps/blobs/sha256 | head -1").stdout.strip()
    path = f"/var/sota/reset-apps/blobs/sha256/{blob}"
    device.run(f"cp {path} /root/whole && printf x | dd of={path} bs=1 seek=1000 conv=notrunc status=none")
    result = device.run("composeapps check --store-only", timeout=300, check=False)
    assert result.exit_status == 4 and blob in result.stdout
    device.run(f"cat /root/whole > {path}")
    assert device.run("composeapps check --store-only", timeout=300).exit_status == 0


def test_exit_statuses(device):
    assert device.run("composeapps show bakery", check=False).exit_status == 3
    assert device.run("composeapps frobnicate", check=False).exit_status == 2
    assert device.run("composeapps version --json").exit_status == 0
    shown = json.loads(device.run("composeapps show web --json").stdout)
    assert {service["name"] for service in shown["services"]} == {"nginx", "counter", "redis"}


def test_dockerd_waits_for_the_check_of_its_store(device):
    shown = device.run("systemctl show --property After,RequiresMountsFor docker.service").stdout
    assert "docker-store-fsck.service" in shown and "RequiresMountsFor=/var/lib/docker" in shown


def test_the_check_of_dockerds_store_heals_from_within_its_unit(device):
    """The unit may write to the data root alone; that must be enough for files of any owner and mode."""
    device.run("docker kill $(docker ps --quiet)", timeout=120)
    # The background check may be reading still, and there is one fsck at a time.
    device.run("systemctl stop composeapps-start.service docker-store-fsck-background.service docker.service "
               "docker.socket containerd.service", timeout=300)
    victim = device.run("find /var/lib/docker/overlay2/*/diff -type f -size +16k | sort | head -n 1").stdout.strip()
    whole = device.run(f"stat -c '%a %u %g %s' {victim}; sha256sum {victim}").stdout
    # As after a power cut under a stock dockerd: the file is empty, and nobody has read the layer yet.
    device.run(f"truncate -s 0 {victim}; rm -f /var/lib/docker/composeapps-fsck/ledger")
    device.run("systemctl restart docker-store-fsck.service", timeout=600, check=False)
    told = device.run("journalctl --boot --output cat --unit docker-store-fsck.service | tail -n 12").stdout
    assert device.run(f"stat -c '%a %u %g %s' {victim}; sha256sum {victim}").stdout == whole, told
    status = device.run("systemctl show --value --property ExecMainStatus docker-store-fsck.service").stdout
    assert status.strip() == "10", told
    device.run("systemctl start composeapps-start.service", timeout=900)
    assert device.run("composeapps ps").exit_status == 0


@pytest.fixture
def broken_factory(device):
    """The factory partition holds noise, with the device off; it is put back after the test."""
    device.power_cut()
    place = device.partition("factory")
    whole = Path(place).read_bytes()
    Path(place).write_bytes(os.urandom(len(whole)))
    yield
    device.power_cut()
    Path(place).write_bytes(whole)


def test_a_full_data_partition_and_a_factory_partition_of_noise_leave_the_apps_running(device, broken_factory):
    device.start()
    device.run("fallocate -l $(df --output=avail -B1 /var | tail -1) /var/full; cat /dev/zero > /var/more", check=False)
    restarted(device)
    assert there(device, "/var/full") and not there(device, "/factory/reset-apps")
    started(device)
    assert device.run("systemctl is-active emergency.target", check=False).stdout == "inactive\n"
    # There is nothing that it could go back to, and that is told before anything is wiped.
    refused = device.run("composeapps factory-reset --yes --no-reboot", check=False, timeout=120)
    assert refused.exit_status and "nothing is reset" in refused.stdout
    device.run("rm /var/full /var/more")


def test_a_data_partition_that_was_lost_from_the_table_is_there_again_with_its_data(device):
    device.power_cut()
    number = str(device.partitions.index("data") + 1)
    # Were the kernel told, one that does not read this kind of table would forget the others, too.
    subprocess.run(["/usr/sbin/sfdisk", "-q", "--no-reread", "--no-tell-kernel", "--force", "--delete", device.loop,
                    number], check=True, capture_output=True)
    subprocess.run(["/usr/bin/partx", "--delete", "--nr", number, device.loop], check=True)
    device.start()
    assert "has no data partition; making one" in said(device)
    assert "composeapps.soak_time = 7" in device.run("cat /var/sota/composeapps.toml").stdout
    started(device)


def test_a_reset_that_keeps_the_registration_keeps_no_data(device):
    before = identity(device)
    reset(device, "registration")
    assert identity(device) == before
    assert there(device, "/var/lib/docker/volumes/mine", "/var/sota/compose-apps/web/photo") == []


def test_without_a_file_system_the_apps_come_from_the_factory_partition(device):
    device.power_cut()
    subprocess.run(["/usr/sbin/blkdiscard", "-f", device.partition("data")], check=True)
    device.start()
    assert "has no file system; making one" in said(device)
    assert not there(device, "/run/ssh/ssh_host_rsa_key") and there(device, "/run/ssh")
    # The serial number is the hardware's; all else was the file system's.
    said(device, "composeapps-provision.service")
    assert json.loads(device.run("cat /var/sota/device.json").stdout)["serial"] == "A1B2C3"
    started(device)
    assert "web: restoring from /factory/reset-apps" in said(device, "composeapps-start.service")


def test_a_reset_that_keeps_data_has_the_apps_back_beside_it(device):
    device.run("touch /var/sota/pkey.pem /var/sota/composeapps.toml; echo again > /run/ssh/ssh_host_rsa_key")
    before = identity(device)
    reset(device, "data")
    assert identity(device) == before
    assert device.run("cat /var/lib/docker/volumes/mine/_data/row /var/sota/compose-apps/web/photo").stdout == (
        "row\nphoto\n")
    started(device)
