"""Fixtures: app → client. This service has no store and calls nobody."""

pytest_plugins = ["common.tests.fixtures"]
