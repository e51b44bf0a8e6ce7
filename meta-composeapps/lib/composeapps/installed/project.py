# SPDX-License-Identifier: MIT
"""An app as docker compose's project: running compose on it, and finding what is its own in dockerd.

compose is given the app's compose file, as ``inputs`` has verified it, and an override, which names each
service's image by what dockerd knows it by, and labels each container with the fingerprint of all that its
definition refers to: so compose replaces a container when a file that it mounts has changed, too.
"""

import functools
import hashlib

from composeapps import durable
from composeapps.app import compose
from composeapps.engine import look, owned
from composeapps.engine.labels import FINGERPRINT, NETWORK, NETWORK_DEFINITION, PROJECT
from composeapps.installed import appfiles, composing, expected, inputs, naming
from composeapps.installed.install import app_directory
from composeapps.oci.names import AppName
from composeapps.records import sealed

# Seconds that docker compose may take for each service, besides what the configuration gives it.
_SERVICE = 30


class Project:
    """An app's project.

    Arguments:
        app: the App; its bundle is unpacked before compose is run.
        images: {service: name of its image in dockerd}.
        states: the StateDirectory.
        config: the Config.
        engine: the Engine, or a Look for finding out how things are.
        definition: the app's switching.definition.Definition; without it containers get no fingerprint,
            which will do for what creates none.
    """

    def __init__(self, app, images, states, config, engine, definition=None):
        self.app, self.images, self.definition = app, images, definition
        self.engine = engine
        self._states, self._config, self._fingerprints = states, config, {}
        self.directory = app_directory(config, app.ref)

    @property
    def app_name(self):
        """The app's name."""
        return self.app.ref.app_name

    @functools.cached_property
    def _value(self):
        return compose.pinned(self.app.compose, f"app {self.app.ref}")

    @functools.cached_property
    def _variables(self):
        return self.definition.environment if self.definition else inputs.environment_of(self._config, self.app.ref)

    @functools.cached_property
    def name(self):
        """The project's name; raises EngineError."""
        return naming.name_of(self.app_name, self.directory, self._value, self._variables, self._states, self.engine)

    def check_name(self):
        """Raise what ``claim`` does, and change nothing."""
        naming.check(self.app_name, self.directory, self.name, self._states, self.engine)

    def claim(self):
        """Make the project's name the app's own; raises UsageError when it is another's, EngineError, StorageError."""
        naming.claim(self.app_name, self.directory, self.name, self._states, self.engine)

    def containers(self, certain=False):
        """Return {service: [container, …]} of the app, each as dockerd describes it, by their numbers.

        A Look tells of those that run what is listed; ``certain`` has it inspect each. Raises EngineError.
        """
        inspect = None if certain else {
            name for name, service in self.definition.services.items() if service.shares} if self.definition else ()
        return owned.containers(self.engine, self.directory, inspect)

    def now(self, services):
        """Return what ``containers`` does of some services, as dockerd describes them at this moment."""
        return owned.containers(look.behind(self.engine), self.directory, None, services)

    def note_rested(self):
        """Write down which containers did their work, as long as they can be told from those that are to be stopped.

        Raises EngineError, StorageError.
        """
        rested = [each["Id"] for found in self.containers().values() for each in found if expected.is_finished(each)]
        with durable.storage_errors(f"noting what app {self.app_name} has done"), durable.if_there_is_room():
            sealed.write(self._states.root, self._rested_record(), sealed.dump({"containers": rested}))

    def rested(self):
        """Return the IDs of the containers that had done their work when the app was stopped, as far as known."""
        rested = (sealed.read(self._states.root, self._rested_record()).value or {}).get("containers")
        return frozenset(map(str, rested if isinstance(rested, list) else ()))

    def _rested_record(self):
        return f"rested/{AppName(self.app_name).file_stem}.json"

    def fingerprint(self, service):
        """Return the mark of a service's definition, by its name; it is worked out once."""
        if service not in self._fingerprints:
            self._fingerprints[service] = self.definition.fingerprint(self.definition.services[service])
        return self._fingerprints[service]

    def network(self, key):
        """Return what dockerd lists of one of the project's networks, or None when it has none."""
        networks = self.engine.networks(f"{PROJECT}={self.name}")
        return next((each for each in networks if (each.get("Labels") or {}).get(NETWORK) == key), None)

    def network_definition(self, key):
        """Return the mark of a network's definition."""
        return hashlib.sha256(self.definition.networks.get(key, "{}").encode()).hexdigest()

    def compose(self, *arguments):
        """Run docker compose on the project; raises EngineError with its own last words, also when it takes too long.

        A compose that outlived its agent is ended before.
        """
        override = self._states.write_override(self.app_name, self._override())
        files = appfiles.compose_arguments(self.app, self._config, self.engine, arguments[0] != "stop")
        try:
            composing.run(
                self._config,
                ["--ansi", "never", "--progress", "plain", "--project-name", self.name,
                 "--project-directory", str(self.directory), *files, "--file", str(override)],
                arguments, self.directory, self._lock_file(), self.time_limit, f"app {self.app_name}")
        finally:
            self.engine.changed(self.directory, self.name)

    def check_mounts(self):
        """Raise CorruptError when a place that is mounted at a start is a link that a container made, StorageError."""
        appfiles.compose_arguments(self.app, self._config, self.engine)

    @functools.cached_property
    def time_limit(self):
        """The seconds that docker compose may take for all of the project, with the times that it itself asks for."""
        services = self._value["services"].values()
        asked = sum(expected.seconds(value, self._variables) for service in services for value in (
            service.get("stop_grace_period"), (service.get("healthcheck") or {}).get("start_period")
            if isinstance(service.get("healthcheck"), dict) else None))
        return self._config.compose_timeout + _SERVICE * len(services) + asked

    def was_cut_off(self):
        """Tell whether the last docker compose did not come to its end, or its agent did not see that.

        dockerd may then still be at what it was asked for.
        """
        return composing.was_cut_off(self._lock_file())

    def _lock_file(self):
        return self._states.root / "compose" / f"{self.app_name.file_stem}.lock"

    def _override(self):
        services, networks = {}, {}
        for service, image in self.images.items():
            services[service] = {"image": image, "pull_policy": "never"}
            if self.definition:
                services[service]["labels"] = {FINGERPRINT: self.fingerprint(service)}
        for key in sorted(self.definition.managed_networks()) if self.definition else ():
            present = self.network(key)
            mark = (present.get("Labels") or {}).get(NETWORK_DEFINITION) if present else self.network_definition(key)
            # One that is there keeps the labels it has: a newer compose replaces a network for a label.
            if mark:
                networks[key] = {"labels": {NETWORK_DEFINITION: mark}}
        return {"services": services, **({"networks": networks} if networks else {})}
