"""Plugins with the fixtures that all tests share."""

pytest_plugins = [
    "tests.plugins.postgres",
    "tests.plugins.rabbitmq",
    "tests.plugins.redis",
    "tests.plugins.stack",
]
