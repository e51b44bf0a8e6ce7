# SPDX-License-Identifier: MIT
"""An SBOM in SPDX 2.3 as JSON (https://spdx.github.io/spdx-spec/v2.3), which grype and others read."""

import hashlib
import json
import time
import uuid
from urllib.parse import quote


def document(name, apps, epoch=0):
    """Return a document; the same apps give the same one.

    Arguments:
        name: the document's.
        apps: [(pinned reference, {pinned reference of an image: packages.Found})].
        epoch: the time that it tells, in seconds since 1970.
    """
    listed, relations = {}, []

    def add(value):
        identifier = "SPDXRef-" + hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
        listed[identifier] = {"SPDXID": identifier, **value}
        return identifier

    def relate(one, kind, other):
        relation = {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
        if relation not in relations:
            relations.append(relation)

    for reference, images in sorted(apps):
        app = add(_container(reference, "APPLICATION"))
        relate("SPDXRef-DOCUMENT", "DESCRIBES", app)
        for pinned, found in sorted(images.items()):
            text = "" if found.databases else "no database of packages is in the image: what is in it is not known"
            image = add(_container(pinned, "CONTAINER", text))
            relate(app, "CONTAINS", image)
            for package in found.packages:
                relate(image, "CONTAINS", add(_package(package, found.distribution)))
    packages = [listed[identifier] for identifier in sorted(listed)]
    content = json.dumps([name, packages, relations], sort_keys=True).encode()
    return {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": name,
        "documentNamespace": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(content).hexdigest())}",
        "creationInfo": {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
                         "creators": ["Tool: composeapps-sbom"]},
        "packages": packages, "relationships": relations,
    }


def _container(reference, purpose, comment=""):
    repository, _at, digest = reference.partition("@")
    url = (f"pkg:oci/{quote(repository.rpartition('/')[2].lower(), safe='')}@{quote(digest, safe='')}"
           f"?repository_url={quote(repository, safe='')}")
    return {
        "name": repository, "versionInfo": digest, "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": purpose, **({"comment": comment} if comment else {}),
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url}],
    }


def _package(package, distribution):
    # Distributions have names of their own for licences, so what they say is told as they say it.
    said = {"licenseComments": f"declared by the distribution: {package.license}"} if package.license else {}
    return {
        "name": package.name, "versionInfo": package.version, "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False, "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION", **said,
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                          "referenceLocator": package.url(distribution)}],
    }
