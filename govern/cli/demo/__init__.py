"""`govern demo`: the main job on real data, in real processes, on this machine."""

from govern.cli.demo.command import demo

__all__ = ["demo"]
