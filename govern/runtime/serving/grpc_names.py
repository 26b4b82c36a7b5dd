"""The names under which the protocol's service is called and described on the wire.

Our messages are registered under a package of our own (`open_inference.proto` says why); the wire and reflection
know them as `inference`. So the description that reflection hands out lives in a pool of its own.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from govern.codecs import open_inference_pb2 as pb

PACKAGE: Final = "inference"
SERVICE: Final = f"{PACKAGE}.GRPCInferenceService"
#: MLServer's clients call the model repository here; its messages are the same.
MLSERVER_REPOSITORY: Final = f"{PACKAGE}.model_repository.ModelRepositoryService"


def described() -> DescriptorPool:
    """A pool that holds the service as it is called on the wire."""
    ours = pb.DESCRIPTOR.package
    file = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    file.name = f"{PACKAGE}.proto"
    file.package = PACKAGE
    messages = list(file.message_type)
    for message in messages:
        messages.extend(message.nested_type)
    for message in messages:
        for field in message.field:
            if field.type_name:
                field.type_name = _renamed(field.type_name, ours)
    for service in file.service:
        for method in service.method:
            method.input_type = _renamed(method.input_type, ours)
            method.output_type = _renamed(method.output_type, ours)
    pool = DescriptorPool()
    pool.Add(file)
    return pool


def _renamed(name: str, package: str) -> str:
    return name.replace(f".{package}.", f".{PACKAGE}.", 1)
