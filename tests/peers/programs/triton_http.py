"""Ask a model with Triton's HTTP client. Arguments: model, binary or json, request id, each server's host:port."""

import base64
import json
import sys

import numpy as np
import tritonclient.http as triton

model, form, request_id, *urls = sys.argv[1:]
binary = form == "binary"
tensor = triton.InferInput("x", [2, 3], "FP32")
tensor.set_data_from_numpy(np.array([[1, 2, 3], [-4, -5, -6]], dtype=np.float32), binary_data=binary)
headers = {"x-request-id": request_id, **({} if binary else {"content-type": "application/json"})}


def ask(url: str) -> dict[str, object]:
    client = triton.InferenceServerClient(url)
    answer = client.infer(model, [tensor], request_id="one", headers=headers)
    body, json_bytes = client.generate_request_body([tensor], request_id="one")
    (output,) = answer.get_response()["outputs"]
    return {
        "answer": answer.get_response(),
        "values": answer.as_numpy(output["name"]).tolist(),
        "metadata": client.get_model_metadata(model),
        "sent": base64.b64encode(body).decode(),
        "json_bytes": json_bytes,
    }


print(json.dumps([ask(url) for url in urls]))
