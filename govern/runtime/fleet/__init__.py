"""The fleet: pipelines that are kept on the bus, and that workers follow there."""
