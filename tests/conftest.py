"""Plugins with the fixtures that all tests share."""

pytest_plugins = ["tests.plugins.redis"]
