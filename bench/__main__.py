"""`python -m bench`, and so `torchrun -m bench`."""

from bench.cli import main

main()
