"""`python -m alignbench`: the command line without the script."""

from alignbench.cli import main

main()
