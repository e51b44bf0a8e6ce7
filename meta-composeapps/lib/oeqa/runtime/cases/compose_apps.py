# SPDX-License-Identifier: MIT
"""What an image with compose apps does once it has booted, for ``bitbake -c testimage``.

    IMAGE_CLASSES += "testimage"
    TEST_SUITES = "ping ssh compose_apps"

The cases need commands on the target only, so a serial console serves as well as ssh. They are not
called "composeapps": under that name BitBake has already imported the package of this layer.
"""

import json
import shlex

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

START_SERVICE = "composeapps-start.service"
SERVICES = ("containerd.service", "docker.service", START_SERVICE)
FACTORY_FILE = "/usr/share/composeapps/factory.json"

# Seconds. An emulated device installs its apps in minutes and starts Python in seconds.
START_TIMEOUT = 1800
COMMAND_TIMEOUT = 300

# Exit status of ``composeapps ps`` when a service is not running as it should.
NOT_RUNNING = 8


class ComposeAppsTest(OERuntimeTestCase):
    """What the cases have in common."""

    def command(self, command, expected=(0,), timeout=COMMAND_TIMEOUT):
        """Run ``command`` on the target and return its output; fail when its status is not among ``expected``."""
        status, output = self.target.run(command, timeout=timeout)
        self.assertIn(status, expected, f"'{command}' ended with status {status}:\n{output}")
        return output

    def agent(self, arguments, expected=(0,), timeout=COMMAND_TIMEOUT):
        """Run ``composeapps ARGUMENTS --json`` and return the parsed document."""
        command = f"composeapps {arguments} --json"
        output = self.command(command, expected, timeout)
        # The target joins standard output and error, where messages come before the document.
        lines = output.splitlines()
        start = next((number for number, line in enumerate(lines) if line[:1] in ("[", "{")), None)
        if start is None:
            self.fail(f"'{command}' printed no JSON document:\n{output}")
        try:
            return json.JSONDecoder().raw_decode("\n".join(lines[start:]))[0]
        except ValueError as err:
            self.fail(f"'{command}' printed damaged JSON ({err}):\n{output}")

    def wait_until_started(self):
        """Wait until the device has installed and started its apps, as it does at each boot."""
        self.command(f"systemctl start {START_SERVICE} || {{ systemctl status --full {START_SERVICE}; exit 1; }}",
                     timeout=START_TIMEOUT)

    def preloaded(self):
        """Return {name: pinned reference} of the apps that the image carries; skip when there is none."""
        apps = json.loads(self.command(f"cat {FACTORY_FILE}"))["apps"]
        if not apps:
            self.skipTest("the image carries no app: set COMPOSEAPPS_PRELOAD")
        return apps


class ComposeAppsServicesTest(ComposeAppsTest):
    """The services that run apps."""

    @OEHasPackage(["composeapps"])
    def test_start(self):
        self.wait_until_started()

    @OETestDepends(["compose_apps.ComposeAppsServicesTest.test_start"])
    def test_services_are_up(self):
        for service in SERVICES:
            status, output = self.target.run(f"systemctl is-active {service}")
            if status:
                output += "\n" + self.target.run(f"systemctl status --full {service}")[1]
            self.assertEqual(status, 0, f"{service} is not up: {output}")

    @OETestDepends(["compose_apps.ComposeAppsServicesTest.test_start"])
    def test_image_store_is_overlay2(self):
        # Containerd's image store, the default of a fresh data directory, reports itself as "overlayfs".
        driver = self.command("docker info --format '{{.Driver}}'").strip().splitlines()[-1]
        self.assertEqual(driver, "overlay2", "apps are installed into and checked against the overlay2 store")


class ComposeAppsStoreTest(ComposeAppsTest):
    """The restorable store, and what the agent tells of it."""

    @OEHasPackage(["composeapps"])
    def test_version(self):
        self.assertIn("composeapps", self.agent("version"))

    @OETestDepends(["compose_apps.ComposeAppsStoreTest.test_version"])
    def test_preloaded_apps_are_in_the_store(self):
        self.wait_until_started()
        listed = {app["uri"]: app for app in self.agent("ls")}
        for name, uri in self.preloaded().items():
            self.assertIn(uri, listed, f"preloaded app {name} is not in the store")
            self.assertTrue(listed[uri]["installed"], f"preloaded app {name} is not installed")

    @OETestDepends(["compose_apps.ComposeAppsStoreTest.test_preloaded_apps_are_in_the_store"])
    def test_store_is_sound(self):
        checked = self.agent("check", timeout=START_TIMEOUT)
        problems = [f"{app['name']}: {problem}" for app in checked for problem in app["problems"]]
        self.assertEqual(problems, [])
        self.assertLessEqual(set(self.preloaded().values()), {app["uri"] for app in checked})

    @OETestDepends(["compose_apps.ComposeAppsStoreTest.test_preloaded_apps_are_in_the_store"])
    def test_show(self):
        for name, uri in self.preloaded().items():
            shown = self.agent(f"show {shlex.quote(name)}")
            self.assertEqual(shown["uri"], uri)
            self.assertTrue(shown["services"], f"app {name} has no service")
            self.assertTrue(all("@sha256:" in service["image"] for service in shown["services"]))


class ComposeAppsRunningTest(ComposeAppsTest):
    """The preloaded apps in dockerd."""

    @OEHasPackage(["composeapps"])
    def test_preloaded_apps_run(self):
        self.wait_until_started()
        preloaded = self.preloaded()
        # The services are judged one by one, for a message that says which one it is.
        apps = {app["name"]: app for app in self.agent("ps", expected=(0, NOT_RUNNING))}
        for name, uri in preloaded.items():
            self.assertIn(name, apps, f"preloaded app {name} is not installed")
            self.assertEqual(apps[name]["uri"], uri, f"app {name} is not the preloaded version")
            for service in apps[name]["services"]:
                what = f"service {service['name']} of app {name}"
                self.assertEqual(service["state"], "running", f"{what} does not run")
                self.assertNotEqual(service["health"], "unhealthy", f"{what} is unhealthy")
                self.assertTrue(service["current"], f"{what} is of another version")

    @OETestDepends(["compose_apps.ComposeAppsRunningTest.test_preloaded_apps_run"])
    def test_status(self):
        status = self.agent("status", expected=(0, NOT_RUNNING))
        problems = [*status["problems"], *(problem["text"] for app in status["apps"] for problem in app["problems"])]
        self.assertEqual(problems, [])
        self.assertLessEqual(set(self.preloaded().values()), {app["uri"] for app in status["apps"]})

    @OETestDepends(["compose_apps.ComposeAppsRunningTest.test_preloaded_apps_run"])
    def test_stop_and_run(self):
        apps = {app["name"]: app for app in self.agent("ps") if app["name"] in self.preloaded()}
        # The app with the fewest services takes the least time.
        name = min(apps, key=lambda app: (len(apps[app]["services"]), app))
        quoted = shlex.quote(name)
        self.agent(f"stop {quoted}")
        try:
            stopped, = self.agent(f"ps {quoted}")
            self.assertTrue(stopped["stopped"])
            self.assertNotIn("running", [service["state"] for service in stopped["services"]])
        finally:
            self.agent(f"run {quoted}", timeout=START_TIMEOUT)
        started, = self.agent(f"ps {quoted}")
        self.assertFalse(started["stopped"])
        self.assertEqual({service["state"] for service in started["services"]}, {"running"})
