"""Networks: chains and graphs of layers."""

from pellucid.network.base import Iteration, Network
from pellucid.network.graph import Graph
from pellucid.network.saving import from_config, load
from pellucid.network.sequential import Sequential

__all__ = ["Graph", "Iteration", "Network", "Sequential", "from_config", "load"]
