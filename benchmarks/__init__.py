"""How fast this project is beside its peers: ``make bench`` or ``python -m benchmarks``."""
