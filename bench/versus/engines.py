"""Starts and ends what is compared. Every engine is a context and has a `pid`,
whose descendants belong to it."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import client

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOME = ROOT / "build/versus"
START_SECONDS = 300
MAX_STREAMS = 32


class Process:
    """A child process whose output goes to a log; ended with its children."""

    def __init__(self, name, command, **options):
        self.log_path = HOME / f"logs/{name}.txt"
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.name = name
        with open(self.log_path, "w") as log:
            options.setdefault("stdout", log)
            self.child = subprocess.Popen(command, stderr=log, start_new_session=True, **options)
        self.pid = self.child.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child.poll() is None and not self.child.stdin:
            self.child.send_signal(signal.SIGINT)
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe:
                pipe.close()

    def failure(self, what):
        """Ends it; the error to raise."""
        self.__exit__()
        last = self.log_path.read_text(errors="replace").strip().splitlines()[-5:]
        return SystemExit("\n".join([f"{self.name} {what}; {self.log_path} ends with:", *last]))


class Witan(Process):
    """`witan serve`: a coordinator and one worker."""

    def __init__(self, directory, num_threads, options=()):
        command = [
            ROOT / "build/release/bin/witan", "serve", directory, "--workers", "1",
            "--threads", str(num_threads), "--port", "0", "--metrics-port", "-1", *options,
        ]
        super().__init__(f"witan-{directory.name}", command, stdout=subprocess.PIPE, text=True)
        for line in self.child.stdout:
            if line.startswith("ready "):
                facts = dict(word.split("=", 1) for word in line.split()[1:])
                self.transport = client.WitanTransport(facts["grpc"])
                return
        raise self.failure("ended before it was ready")


class LlamaLibrary(Process):
    """llama.cpp through llama_cpp's low-level calls, without a server."""

    def __init__(self, gguf, num_threads):
        script = pathlib.Path(__file__).with_name("llama_library.py")
        command = [sys.executable, script, gguf, str(num_threads)]
        super().__init__(
            f"library-{gguf.stem}", command,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self.about = self._answer()

    def _answer(self):
        line = self.child.stdout.readline()
        if not line:
            raise self.failure("ended")
        return json.loads(line)

    def call(self, name, **arguments):
        self.child.stdin.write(json.dumps({"call": name, **arguments}) + "\n")
        self.child.stdin.flush()
        return self._answer()

    def __exit__(self, *error):
        self.child.stdin.close()  # it ends by itself then
        super().__exit__(*error)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class HttpServer(Process):
    """A server of the llama.cpp family; ready when its port answers `path` with 200."""

    def __init__(self, name, command, port, path):
        super().__init__(name, [*command, "--port", str(port)])
        self.address = f"127.0.0.1:{port}"
        end = time.monotonic() + START_SECONDS
        while not self._answers(path):
            if self.child.poll() is not None or time.monotonic() > end:
                raise self.failure("does not get ready")
            time.sleep(0.1)

    def _answers(self, path):
        connection = client.http.client.HTTPConnection(self.address, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


class LlamaServer(HttpServer):
    """llama-server, built from the sources of llama-cpp-python; continuous batching."""

    def __init__(self, gguf, num_threads):
        threads = str(num_threads)
        command = [
            HOME / "native/bin/llama-server", "--model", gguf, "--host", "127.0.0.1",
            "--threads", threads, "--threads-batch", threads, "--parallel", str(MAX_STREAMS),
            "--ctx-size", str(256 * MAX_STREAMS),
            # Caches of earlier prompts, which no prompt here could use.
            "--cache-ram", "0", "--ctx-checkpoints", "0",
        ]
        super().__init__(f"llama-server-{gguf.stem}", command, free_port(), "/health")
        self.transport = client.LlamaServerTransport(self.address)


class PythonServer(HttpServer):
    """`python -m llama_cpp.server`: one completion at a time, behind a lock."""

    def __init__(self, gguf, num_threads):
        threads = str(num_threads)
        command = [
            sys.executable, "-m", "llama_cpp.server", "--model", gguf, "--host", "127.0.0.1",
            "--n_threads", threads, "--n_threads_batch", threads, "--n_ctx", "1024",
            "--verbose", "false",
        ]
        super().__init__(f"python-server-{gguf.stem}", command, free_port(), "/v1/models")
        self.transport = client.PythonServerTransport(self.address)
