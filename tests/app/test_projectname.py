# SPDX-License-Identifier: MIT
"""What an app's compose project is called where nothing of it is there yet, and what its publisher is told of that."""

import pytest

from composeapps.app import projectname
from composeapps.errors import UsageError


@pytest.mark.parametrize("app_name, value, variables, name", [
    ("shop", None, {}, "shop"), ("my.shop", {}, {}, "myshop"), ("team/shop", {}, {}, "team___shop"),
    ("shop", {"name": "other"}, {}, "other"), ("shop", {"name": "${N}-x"}, {"N": "n"}, "n-x"),
    ("shop", {"name": "other"}, {"COMPOSE_PROJECT_NAME": "third"}, "third"), ("_shop", {}, {}, "shop"),
    ("shop", {"name": None}, {}, "shop"), ("shop", {"name": "${N"}, {}, "${N"),
])
def test_what_compose_calls_a_project(app_name, value, variables, name):
    assert projectname.default(app_name, value, variables) == name


@pytest.mark.parametrize("app_name, value, told", [
    ("shop", {}, None), ("shop", {"name": "shop"}, None), ("my.shop", {}, "'myshop'"),
    ("team/shop", {}, "'team___shop'"),
    ("shop", {"name": "other"}, "'other'"), ("my.shop", {"name": "my-shop"}, "'my-shop'"),
])
def test_who_publishes_is_told_of_a_name_that_another_app_may_have(app_name, value, told):
    said = projectname.remark(app_name, value, {})
    assert told in said if told else said == ""


@pytest.mark.parametrize("name", ["My Shop", "-shop", "shöp", "a/b", "${N"])
def test_a_name_that_compose_does_not_take_is_refused(name):
    with pytest.raises(UsageError, match="no name of a compose project"):
        projectname.remark("shop", {"name": name}, {})
