"""Contracts that every layer, loss and engine keeps.

The jax engine compiles every shape it meets, so what hundreds of small tests ask of the others step by step,
`test_jax` asks of it in one compiled function for each row of the same tables.
"""

from pellucid import engines

STEPWISE = [name for name in engines.available() if name != "jax"]
