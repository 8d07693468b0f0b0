"""What `./workshop` runs."""

import sys

try:
    from workshop.cli import main

    main()
except KeyboardInterrupt:  # while the modules load; once they have, click says the same
    sys.exit("Aborted!")
