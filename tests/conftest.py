"""Plugins with the fixtures that all tests share."""

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.plugins.postgres",
    "tests.plugins.rabbitmq",
    "tests.plugins.redis",
    "tests.plugins.stack",
]

# How long examples take to make depends on what else the machine does.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")
