# SPDX-License-Identifier: MIT
"""The recipes of the demo apps, for a combination whose image carries them."""

from pathlib import Path

import hostsetup
from composeapps.errors import ComposeAppsError
from demonstration.chain import Chain
from demonstration.errors import DemoError
from factory.demo import demo_registry, publish_demo
from layercheck.errors import CheckError

PART = "preload"


def generate(context):
    """Publish the demo apps to a registry of this machine, generate their recipes, and name them to kas.

    The digests in the recipes are those of a real registry; a dry run then needs it no more. Raises CheckError.
    """
    chain = Chain(context.top, Path(context.build))
    try:
        hostsetup.extract_programs(["registry"])
        with context.progress.step("publishing the demo apps and generating their recipes"), \
                demo_registry(chain.build) as registry:
            publish_demo(registry.endpoint, chain.top, chain.build, progress=context.progress.detail)
            sources = sorted((chain.top / "conf" / "apps").glob("*.yml"))
            names = chain.generate_recipes(sources, registry.endpoint)
    except (hostsetup.SetupError, ComposeAppsError, DemoError) as err:
        raise CheckError(f"the demo apps' recipes cannot be generated: {err}") from err
    context.kas.environment.update({
        "COMPOSEAPPS_RECIPES": str(chain.recipes.resolve()), "COMPOSEAPPS_PRELOAD": " ".join(names)})
