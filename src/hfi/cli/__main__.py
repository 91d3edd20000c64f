"""`python -m hfi.cli` is the command `hfi`."""

from hfi.cli.app import main

main()
