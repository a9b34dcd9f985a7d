"""The one line that brings the fixtures."""

pytest_plugins = ["lowtide.testing"]
