"""`python -m rekv` is `rekv`."""

from rekv.cli import main

main(prog_name="rekv")
