"""Ask a model with Triton's gRPC client. Arguments: model, request id, the server's host:port."""

import json
import sys

import numpy as np
import tritonclient.grpc as triton

model, request_id, url = sys.argv[1:]
client = triton.InferenceServerClient(url)
tensor = triton.InferInput("x", [2, 3], "FP32")
tensor.set_data_from_numpy(np.array([[1, 2, 3], [-4, -5, -6]], dtype=np.float32))


def ask(name: str, **options: object) -> object:
    """The values of the answer, or the status of the refusal."""
    try:
        answer = client.infer(name, [tensor], request_id=request_id, **options)
    except triton.InferenceServerException as error:
        return [error.status(), error.message()]
    (output,) = answer.get_response().outputs
    return answer.as_numpy(output.name).tolist()


print(
    json.dumps(
        {
            "live": client.is_server_live(),
            "values": ask(model),
            "packed": ask(model, compression_algorithm="gzip"),
            "nowhere": ask("nowhere"),
        }
    )
)
client.close()
