"""`govern demo`: the main job on real data, in real processes, on this machine."""
