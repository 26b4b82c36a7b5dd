"""KServe's own model server with a model that adds up the columns of its rows. Arguments: HTTP port, gRPC port."""

import sys

from kserve import InferOutput, InferResponse, Model, ModelServer


class Adder(Model):
    def __init__(self):
        super().__init__("adder")
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        if isinstance(payload, dict):
            return {"predictions": [sum(row) for row in payload["instances"]]}
        total = payload.inputs[0].as_numpy().sum(axis=1)
        output = InferOutput("total", list(total.shape), payload.inputs[0].datatype)
        output.set_data_from_numpy(total, binary_data=payload.use_binary_outputs)
        return InferResponse(payload.id, self.name, [output], use_binary_outputs=payload.use_binary_outputs)


http_port, grpc_port = (int(port) for port in sys.argv[1:])
ModelServer(http_port=http_port, grpc_port=grpc_port, workers=1, enable_grpc=True).start([Adder()])
