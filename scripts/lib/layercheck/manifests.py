# SPDX-License-Identifier: MIT
"""Judge whether an image's SBOM and licence manifest say which compose apps it carries.

Formats: SPDX 3.0 as openembedded-core's create-spdx writes it (JSON-LD, all elements in ``@graph``), and the
licence manifest of its license_image class (stanzas of ``FIELD: value`` lines with an empty line after each).
"""

import re
from urllib.parse import parse_qs, unquote, urlsplit


def purl_target(purl):
    """Return "repository@digest" of a Package URL of the type oci, or None for another.

    Format: purl specification, type oci: ``pkg:oci/name@digest?repository_url=host/path``.
    """
    parts = urlsplit(purl)
    if parts.scheme != "pkg" or not parts.path.startswith("oci/"):
        return None
    repository = parse_qs(parts.query).get("repository_url", [""])[0]
    return f"{repository}@{unquote(parts.path.rpartition('@')[2])}"


def sbom_problems(document, apps):
    """Return what is missing in an image's SBOM, a sentence each.

    Arguments:
        document: the JSON document.
        apps: AppFacts of the apps in the image.
    """
    graph = document.get("@graph", [])
    packages = {}
    for element in graph:
        if element.get("type") == "software_Package" and element.get("software_primaryPurpose") == "install":
            packages.setdefault(element.get("name"), element)
    installed = _inputs_of_root(graph)
    problems = []
    for app in apps:
        package = packages.get(f"composeapp-{app.name}")
        if not package:
            problems.append(f"app {app.name}: the SBOM has no package composeapp-{app.name}")
            continue
        if package.get("spdxId") not in installed:
            problems.append(f"app {app.name}: the SBOM does not say that its package is in the root file system")
        named = {purl_target(purl) for purl in _purls(package)}
        problems += [f"app {app.name}: no Package URL in the SBOM is that of {reference}"
                     for reference in (app.uri, *app.images) if reference not in named]
    return problems


def _purls(package):
    purls = [entry.get("identifier", "") for entry in package.get("externalIdentifier", [])
             if entry.get("externalIdentifierType") == "packageUrl"]
    return [*purls, package.get("software_packageUrl", "")]


def _inputs_of_root(graph):
    """Return the identifiers of what do_rootfs was given; to create-spdx that is what is installed."""
    builds = {element["spdxId"] for element in graph if element.get("type") == "build_Build"
              and element.get("build_buildType", "").endswith("/rootfs")}
    return {target for element in graph if element.get("relationshipType") == "hasInput" and element["from"] in builds
            for target in element["to"]}


def licence_problems(text, apps):
    """Return what is missing in an image's licence manifest, a sentence each; arguments as for sbom_problems."""
    stanzas = [_fields(stanza) for stanza in re.split(r"\n\s*\n", text) if stanza.strip()]
    packages = {fields["PACKAGE NAME"][0]: fields for fields in stanzas if "PACKAGE NAME" in fields}
    carried = {fields["APP"][0]: fields for fields in stanzas if "APP" in fields}
    problems = []
    for app in apps:
        package, stanza = packages.get(f"composeapp-{app.name}"), carried.get(app.uri)
        if not package:
            problems.append(f"app {app.name}: the licence manifest has no package composeapp-{app.name}")
        elif package.get("LICENSE") != [app.license]:
            problems.append(f"app {app.name}: the licence manifest says {package.get('LICENSE')}, not {app.license}")
        if not stanza:
            problems.append(f"app {app.name}: the licence manifest does not name {app.uri}")
            continue
        problems += [f"app {app.name}: the licence manifest does not name {image}"
                     for image in app.images if image not in stanza.get("CONTAINER IMAGE", [])]
    return problems


def _fields(stanza):
    fields = {}
    for line in stanza.splitlines():
        name, colon, value = line.partition(": ")
        if colon:
            fields.setdefault(name, []).append(value.strip())
    return fields
