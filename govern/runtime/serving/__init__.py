"""Steps of pipelines served inline: over Open Inference Protocol V2, and to the proxy that asks for a judgement."""
