"""Other people's servers and clients, as real processes from environments of their own (`make test-peers`)."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.mirror.conftest import DEADLINE_S, proxy_process, spool_dir
from tests.services.process import Process, ServiceError, free_port, listening

__all__ = ["proxy_process", "spool_dir"]

ROOT: Final = Path(__file__).parents[2]
PROGRAMS: Final = Path(__file__).parent / "programs"
#: MLServer, tritonclient, openai, hypercorn, websockets.
PEERS: Final = ".venv-peers"
#: KServe's server and client.
KSERVE: Final = ".venv-peers-kserve"
HOST: Final = "127.0.0.1"


def program(environment: str, name: str, *arguments: object) -> list[str]:
    """The command that runs one of our programs with somebody's libraries."""
    return [python(environment), str(PROGRAMS / f"{name}.py"), *map(str, arguments)]


def python(environment: str) -> str:
    found = ROOT / environment / "bin" / "python"
    if not found.exists():
        raise ServiceError(f"{environment} is not there, and this test needs it: make {environment}/.ready")
    return str(found)


def result(environment: str, name: str, *arguments: object) -> Any:
    """What one of our programs prints, which is JSON."""
    done = subprocess.run(
        program(environment, name, *arguments), capture_output=True, text=True, timeout=DEADLINE_S, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def post(port: int, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The body of the answer to a request made by hand."""
    connection = http.client.HTTPConnection(HOST, port, timeout=DEADLINE_S)
    connection.request("POST", path, body, headers)
    answer = connection.getresponse().read()
    connection.close()
    return answer


def ready(port: int, path: str) -> bool:
    if not listening(port):
        return False
    connection = http.client.HTTPConnection(HOST, port, timeout=DEADLINE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class MLServer:
    """`mlserver start` with one scikit-learn model, `income`."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.http, self.grpc = free_port(), free_port()
        self.folder = folder
        own = {"host": HOST, "http_port": self.http, "grpc_port": self.grpc, "metrics_port": free_port()}
        defaults = {"metrics_dir": str(folder), "parallel_workers": 0, "debug": False}
        (folder / "settings.json").write_text(json.dumps(own | defaults | settings))
        model = {
            "name": "income",
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": "./model.joblib", "version": "v1"},
        }
        (folder / "model-settings.json").write_text(json.dumps(model))
        subprocess.run(program(PEERS, "train", folder / "model.joblib"), check=True, timeout=DEADLINE_S)
        # Our own folder stays out of its path: what it imports of govern is what is installed there.
        command = ["env", "-u", "PYTHONPATH", "-C", str(folder), str(Path(python(PEERS)).with_name("mlserver"))]
        self.process = Process([*command, "start", str(folder)], log=folder / "mlserver.log")

    def start(self) -> None:
        self.process.start(lambda _: ready(self.http, "/v2/models/income/ready") and listening(self.grpc))


@pytest.fixture(scope="session")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLServer]:
    """MLServer as its people ship it."""
    server = MLServer(tmp_path_factory.mktemp("mlserver"))
    server.start()
    yield server
    server.process.stop()


@pytest.fixture(scope="session")
def kserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of KServe's own server, with a model that adds up columns."""
    port = free_port()
    process = Process(
        program(KSERVE, "kserve_server", port, free_port()), log=tmp_path_factory.mktemp("kserve") / "log"
    )
    process.start(lambda _: ready(port, "/v2/models/adder/ready"))
    yield port
    process.stop()


@pytest.fixture(scope="session")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that speaks OpenAI's chat protocol: `chat_app`, run by a real uvicorn."""
    port = free_port()
    process = Process(
        [
            *(sys.executable, "-m", "uvicorn", "chat_app:app", "--app-dir", str(PROGRAMS), "--port", str(port)),
            *("--no-date-header", "--log-level", "warning"),
        ],
        log=tmp_path_factory.mktemp("chat") / "log",
    )
    process.start(lambda _: listening(port))
    yield port
    process.stop()
