"""``python -m s2mlp_deploy`` is the command line."""

from s2mlp_deploy.cli.main import main

main()
