"""Stream to a model with MLServer's own messages. Arguments: model, request id, the server's host:port."""

import json
import sys

import grpc
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

model, request_id, url = sys.argv[1:]


def requests(name, count):
    for number in range(count):
        request = pb.ModelInferRequest(model_name=name, id=f"{request_id}-{number}")
        tensor = request.inputs.add(name="x", datatype="FP32", shape=[2, 3])
        tensor.contents.fp32_contents.extend([1, 2, 3, -4, -5, -6])
        yield request


def stream(name, count):
    """The ids and values of the answers, or the status of the refusal."""
    try:
        answers = list(stub.ModelStreamInfer(requests(name, count), timeout=60))
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return [[answer.id, list(answer.outputs[0].contents.int64_contents)] for answer in answers]


with grpc.insecure_channel(url) as channel:
    stub = GRPCInferenceServiceStub(channel)
    print(json.dumps({"one": stream(model, 1), "three": stream(model, 3), "nowhere": stream("nowhere", 1)}))
