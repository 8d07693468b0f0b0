"""What `./workshop` runs."""

import sys

try:
    from workshop.cli import main

    main()
except KeyboardInterrupt:  # while the modules load; once they have, click says the same
    sys.exit("Aborted!")
except ImportError as error:
    if (error.name or "").split(".")[0] == "workshop":
        raise
    sys.exit(
        f"Error: A Python package in .venv/ is missing or damaged ({error}). Run `./workshop setup`, which repairs it."
    )
