# SPDX-License-Identifier: MIT
# Skips a recipe whose REQUIRED_/ANY_OF_/CONFLICT_<kind>_FEATURES the build does not meet.

def fastlane_feature_problem(d):
    """Return why a recipe does not fit the configured features, or None."""
    for kind in ("DISTRO", "MACHINE", "IMAGE"):
        present = set((d.getVar(kind + "_FEATURES") or "").split())
        required = set((d.getVar("REQUIRED_%s_FEATURES" % kind) or "").split())
        alternatives = set((d.getVar("ANY_OF_%s_FEATURES" % kind) or "").split())
        conflicting = set((d.getVar("CONFLICT_%s_FEATURES" % kind) or "").split())
        if required - present:
            return "%s_FEATURES lacks %s" % (kind, " ".join(sorted(required - present)))
        if alternatives and not alternatives & present:
            return "%s_FEATURES has none of %s" % (kind, " ".join(sorted(alternatives)))
        if conflicting & present:
            return "%s_FEATURES must not have %s" % (kind, " ".join(sorted(conflicting & present)))
    return None

python () {
    problem = fastlane_feature_problem(d)
    if problem:
        raise bb.parse.SkipRecipe("%s: %s" % (d.getVar("PN"), problem))
}
