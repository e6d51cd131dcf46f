"""Takes no-op steps the way another harness does: one for each line on standard input, answered with its seconds."""

import asyncio
import contextlib
import secrets
import socket
import subprocess
import sys
import time

WHICH, IMAGE = sys.argv[1], sys.argv[2]
# What the harness itself prints is none of ours.
answers = sys.stdout
sys.stdout = sys.stderr


def answer(text):
    answers.write(f"{text}\n")
    answers.flush()


def mini_swe_agent():
    from minisweagent.environments.docker import DockerEnvironment

    label = ["--rm", "--network", "none", "--label", f"mlgym.bench={sys.argv[3]}"]
    environment = DockerEnvironment(image=IMAGE, cwd="/workspace", run_args=label)
    try:
        answer("ready")
        for _ in sys.stdin:
            started = time.perf_counter()
            output = environment.execute({"command": ":"})
            took = time.perf_counter() - started
            answer(took if output["returncode"] == 0 else f"failed: {output}")
    finally:
        subprocess.run(["docker", "rm", "-f", environment.container_id], stdout=subprocess.DEVNULL)


async def swe_rex():
    from swerex.runtime.abstract import BashAction, CreateBashSessionRequest
    from swerex.runtime.remote import RemoteRuntime

    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(8)
    words = ["-m", "swerex.server", "--host", "127.0.0.1", "--port", str(port), "--auth-token", token]
    server = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        runtime = RemoteRuntime(auth_token=token, host="http://127.0.0.1", port=port, timeout=10)
        await runtime.wait_until_alive(timeout=60)
        await runtime.create_session(CreateBashSessionRequest())
        answer("ready")
        for _ in sys.stdin:
            started = time.perf_counter()
            output = await runtime.run_in_session(BashAction(command=":"))
            took = time.perf_counter() - started
            answer(took if output.exit_code == 0 else f"failed: {output}")
        await runtime.close()
    finally:
        server.kill()


if WHICH == "mini-swe-agent":
    mini_swe_agent()
else:
    asyncio.run(swe_rex())
