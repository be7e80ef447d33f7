"""`angarium witness`: see node/cli/join.py."""

from node.cli.join import witness as command

__all__ = ["command"]
