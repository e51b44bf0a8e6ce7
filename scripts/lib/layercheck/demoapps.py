# SPDX-License-Identifier: MIT
"""The recipes of the demo apps, for a combination whose image carries them."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import hostsetup
from composeapps.errors import ComposeAppsError
from demonstration.chain import Chain
from demonstration.errors import DemoError
from factory.demo import demo_registry, publish_demo
from layercheck.errors import CheckError

PART = "preload"


@dataclass(frozen=True)
class DemoApps:
    """The apps' ``names``, the directory of their ``recipes``, and the ``endpoint`` of the registry that has them."""

    names: list
    recipes: Path
    endpoint: str


@contextlib.contextmanager
def published(context, recipes=None):
    """Publish the demo apps to a registry of this machine, which the block has, and name their recipes to kas.

    Arguments:
        context: a Context.
        recipes: the directory for the recipes; the demo's by default.

    Gives the DemoApps. Raises CheckError.
    """
    chain = Chain(context.top, Path(context.build))
    chain.recipes = recipes or chain.recipes
    try:
        hostsetup.extract_programs(["registry"])
        with demo_registry(chain.build) as endpoint:
            with context.progress.step("publishing the demo apps and generating their recipes"):
                publish_demo(endpoint, chain.top, chain.build, progress=context.progress.detail)
                sources = sorted((chain.top / "conf" / "apps").glob("*.yml"))
                names = chain.generate_recipes(sources, endpoint)
            context.kas.environment.update({
                "COMPOSEAPPS_RECIPES": str(chain.recipes.resolve()), "COMPOSEAPPS_PRELOAD": " ".join(names)})
            yield DemoApps(names, chain.recipes, endpoint)
    except (hostsetup.SetupError, ComposeAppsError, DemoError) as err:
        raise CheckError(str(err)) from err


def generate(context):
    """Generate the recipes with the digests of a real registry; a dry run needs it no more. Raises CheckError."""
    with published(context):
        pass
