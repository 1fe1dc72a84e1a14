"""``python -m s2mlp_deploy`` and the console script: the command line."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line. Ctrl-C while it is being imported ends like Ctrl-C in a command: in one word."""
    try:
        # Here, for no traceback may come of interrupting it.
        from s2mlp_deploy.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
