"""Ask a served step with Triton's clients. Arguments: model, file of a V2 request, host:port of REST and of gRPC."""

import json
import sys

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

model, file, rest, rpc = sys.argv[1:]
with open(file) as opened:
    inputs = json.load(opened)["inputs"]


def ask(triton, url):
    client = triton.InferenceServerClient(url)
    tensors = []
    for one in inputs:
        tensor = triton.InferInput(one["name"], one["shape"], one["datatype"])
        tensor.set_data_from_numpy(
            np.array(one["data"]).astype(triton_to_np_dtype(one["datatype"])).reshape(one["shape"])
        )
        tensors.append(tensor)
    answer = client.infer(model, tensors, request_id="asked")
    try:
        client.infer("nowhere", tensors)
        refused = None
    except InferenceServerException as error:
        refused = [error.status(), error.message()]
    client.unload_model(model)
    unloaded = client.is_model_ready(model)
    client.load_model(model)
    described = client.get_model_metadata(model, **({"as_json": True} if triton is tritonclient.grpc else {}))
    index = client.get_model_repository_index(**({"as_json": True} if triton is tritonclient.grpc else {}))
    index = index["models"] if isinstance(index, dict) else index
    found = {
        "live": client.is_server_live() and client.is_server_ready(),
        "values": {one["name"]: answer.as_numpy(one["name"]).tolist() for one in described["outputs"]},
        "refused": refused,
        "ready": [unloaded, client.is_model_ready(model)],
        "index": [[one["name"], one["state"]] for one in index],
    }
    client.close()
    return found


print(json.dumps([ask(tritonclient.http, rest), ask(tritonclient.grpc, rpc)]))
