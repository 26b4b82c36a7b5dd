"""Chat with OpenAI's client, whole and streamed. Arguments: request id, each server's host:port."""

import json
import sys

from openai import OpenAI

request_id, *urls = sys.argv[1:]
asked = [{"role": "user", "content": "Above or below?"}]


def chat(url: str) -> object:
    client = OpenAI(base_url=f"http://{url}/v1", api_key="none", max_retries=0)

    def create(form: str, **options: object):
        return client.chat.completions.create(
            model="clerk", messages=asked, extra_headers={"x-request-id": f"{request_id}-{form}"}, **options
        )

    return [create("whole").model_dump(), [chunk.model_dump() for chunk in create("stream", stream=True)]]


print(json.dumps([chat(url) for url in urls]))
