"""The platform of the workshop: it runs, registers, routes, scales and kills instances of services."""
