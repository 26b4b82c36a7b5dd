"""The worker that runs pipelines over the bus, exactly once; and the V2 inference server."""
