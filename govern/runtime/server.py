"""A small Open Inference Protocol V2 server for anything that maps tensors to tensors."""

from govern.runtime.serving.model import ModelMetadata, TensorMetadata, V2Model
from govern.runtime.serving.rest import create_app

__all__ = ["ModelMetadata", "TensorMetadata", "V2Model", "create_app"]
