"""Talk over a WebSocket. Argument: host:port."""

import json
import sys

from websockets.sync.client import connect

said = ["hello", "x" * 70_000, "äöü"]
heard = []
with connect(f"ws://{sys.argv[1]}/chat", max_size=None) as socket:
    for text in said:
        socket.send(text)
        heard.append(socket.recv())
print(json.dumps(heard))
