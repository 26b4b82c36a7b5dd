"""Make the samples `sdk-*.http` with CNCF's SDK, in an environment of its own:

python -m venv /tmp/sdk && /tmp/sdk/bin/pip install cloudevents==2.2.0
/tmp/sdk/bin/python tests/mirror/sink/samples/make_sdk_samples.py
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from cloudevents.core.bindings.http import HTTPMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

HERE = Path(__file__).parent


def event(side: str, data: object, content_type: str = "application/json") -> CloudEvent:
    attributes = {
        "specversion": "1.0",
        "id": "sdk-1",
        "source": "http://localhost:9081/",
        "type": f"org.kubeflow.serving.inference.{side}",
        "time": datetime(2026, 11, 24, 0, 18, 39, 563031, tzinfo=UTC),
        "datacontenttype": content_type,
        "inferenceservicename": "income",
        "namespace": "prod",
        "component": "predictor",
        "endpoint": "",
        "metadata": json.dumps({"X-Tenant": ['Zürich "a" 100%']}),
    }
    return CloudEvent(attributes, data)


def write(name: str, message: HTTPMessage) -> None:
    headers = {"Host": "sink", **message.headers, "Content-Length": str(len(message.body))}
    lines = [f"{header}: {value}\r\n" for header, value in headers.items()]
    (HERE / name).write_bytes(f"POST / HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + message.body)


if __name__ == "__main__":
    asked, answered = {"instances": [[1, 2, 3, 4]]}, {"predictions": [0.9]}
    write("sdk-binary-request.http", to_binary_event(event("request", asked)))
    write("sdk-binary-response.http", to_binary_event(event("response", answered)))
    write("sdk-structured-request.http", to_structured_event(event("request", asked)))
    packed = json.dumps(answered).encode()
    write("sdk-structured-response.http", to_structured_event(event("response", packed, "application/octet-stream")))
