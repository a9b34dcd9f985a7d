"""Plugins with the fixtures that all tests share."""

pytest_plugins = ["tests.plugins.postgres", "tests.plugins.redis", "tests.plugins.stack"]
