"""The rules of a pipeline, one noun each; `govern.pipeline.check` applies them."""
