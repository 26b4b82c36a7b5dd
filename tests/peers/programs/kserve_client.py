"""Ask a model with KServe's client. Arguments: model, v1, v2 or binary (of V2), request id, each server's host:port."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

model, form, request_id, *urls = sys.argv[1:]
rows = [[1, 2, 3], [-4, -5, -6]]
headers = {"x-request-id": request_id}
client = InferenceRESTClient(RESTConfig(protocol="v1" if form == "v1" else "v2"))


async def ask(url: str) -> object:
    if form == "v1":
        return await client.infer(f"http://{url}", {"instances": rows}, model_name=model, headers=headers)
    tensor = InferInput("x", [2, 3], "FP32")
    tensor.set_data_from_numpy(np.array(rows, dtype=np.float32), binary_data=form == "binary")
    request = InferRequest(model, [tensor], request_id="one")
    answer = await client.infer(f"http://{url}", request, model_name=model, headers=headers)
    return [answer.id, [[each.name, each.datatype, each.as_numpy().tolist()] for each in answer.outputs]]


async def main() -> None:
    print(json.dumps([await ask(url) for url in urls]))


asyncio.run(main())
