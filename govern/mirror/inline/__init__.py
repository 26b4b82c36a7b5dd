"""Steps of a pipeline that the proxy asks before it answers."""
