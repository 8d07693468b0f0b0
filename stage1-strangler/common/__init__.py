"""What every service needs; a build of a service contains it beside the service's own package.

In production this would be a package with versions of its own, so that each service takes over a change when it likes.
"""
