"""`python -m seehear` is `seehear`."""

from seehear.cli.main import main

main()
