"""A tool server that misbehaves as it is told, in plain JSON-RPC on standard input and output.

``python odd_server.py LOG [HABIT...]``. It writes its process id, and then each message that it
reads, as lines into LOG. Without habits it is a good server; its tools have the faults.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

LOG = open(sys.argv[1], "a", buffering=1)  # noqa: SIM115  # because it stays open to the end
HABITS = set(sys.argv[2:])
ANY = {"type": "object"}
ONE_PIXEL = "iVBORw0KGgo="
TOOLS: list[dict[str, Any]] = [
    {
        "name": "echo",
        "description": "Say it.",
        "inputSchema": {
            "type": "object",
            "properties": {"text": {"type": "string"}},
            "required": ["text"],
        },
    },
    {
        "name": "look",
        "title": "Look around",
        "inputSchema": ANY,
        "annotations": {"readOnlyHint": True, "destructiveHint": True},
    },
    {
        "name": "set",
        "inputSchema": ANY,
        "annotations": {"idempotentHint": True, "destructiveHint": False},
    },
    {"name": "a/b", "inputSchema": ANY},
    {"name": "a_b", "inputSchema": ANY},
    {
        "name": "elsewhere",
        "inputSchema": {
            "type": "object",
            "properties": {"x": {"$ref": "https://example.com/x.json"}},
        },
    },
    *(
        {"name": name, "inputSchema": ANY}
        for name in (
            "fail",
            "refuse",
            "parts",
            "data",
            "wrapped",
            "odd_data",
            "slow",
            "hang",
            "die",
            "child",
            "garbage",
            "huge",
            "no_answer",
            "bad_base64",
            "close",
            "fade",
            "deaf",
            "change",
            "old",
        )
    ),
]


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def texts(*said: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text} for text in said], **more}


def call(
    name: str, arguments: dict[str, Any], token: object, ident: object
) -> dict[str, Any] | None:
    """The result; None if there is to be none."""
    match name:
        case "echo":
            return texts(arguments["text"])
        case "fail":
            return texts("no such file", "try another", isError=True)
        case "parts":
            return {
                "content": [
                    {"type": "text", "text": "here:"},
                    {"type": "image", "data": ONE_PIXEL, "mimeType": "image/png"},
                    {"type": "audio", "data": ONE_PIXEL, "mimeType": "audio/wav"},
                    {
                        "type": "resource_link",
                        "uri": "file:///a",
                        "name": "a",
                        "mimeType": "text/csv",
                    },
                    {
                        "type": "resource",
                        "resource": {"uri": "file:///b", "mimeType": "text/html", "text": "<p>"},
                    },
                    {"type": "resource", "resource": {"uri": "file:///c", "blob": ONE_PIXEL}},
                ]
            }
        case "data":
            return texts('{"n": 1}', structuredContent={"n": 1})
        case "wrapped":
            return texts("1", "2", structuredContent={"result": [1, 2]})
        case "odd_data":
            return texts("about one", structuredContent={"n": 1})
        case "slow":
            for step in range(1, arguments.get("steps", 20) + 1):
                about = {"progressToken": token, "progress": step, "message": f"step {step}"}
                send({"method": "notifications/progress", "params": about})
                time.sleep(arguments.get("pause", 0))
            return texts("done")
        case "hang":
            return None
        case "die":
            print("the last words", file=sys.stderr, flush=True)
            os._exit(7)
        case "child":
            command = [
                sys.executable,
                "-c",
                "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); time.sleep(600)",
            ]
            return texts(str(subprocess.Popen(command, stdin=subprocess.DEVNULL).pid))
        case "garbage":
            print("Starting up!\n{not json\n[]\n{}\n\xff\n" + "9" * 400 + "\n" + "[" * 50_000)
            return texts("after all")
        case "huge":
            return texts("x" * 3_000_000)
        case "no_answer":
            sys.stdout.write(json.dumps({"id": ident, "result": 7}) + "\n")
            sys.stdout.flush()
        case "bad_base64":
            return {"content": [{"type": "image", "data": "!!", "mimeType": "image/png"}]}
        case "close":
            os.close(1)
            os.closerange(3, 1_024)  # uvloop gives each pipe twice
            time.sleep(600)
        case "fade":
            os.close(1)
            os.closerange(3, 1_024)
            time.sleep(arguments["seconds"])
            os._exit(7)
        case "deaf":
            time.sleep(600)
        case "change":
            TOOLS.append({"name": "new", "inputSchema": ANY})
            TOOLS[:] = [tool for tool in TOOLS if tool["name"] != "old"]
            send({"method": "notifications/tools/list_changed"})
            return texts("changed")
        case _:
            return texts(f"{name} was called")
    return None


def main() -> None:
    print(os.getpid(), file=LOG)
    if "dies-at-start" in HABITS:
        print("no configuration", file=sys.stderr, flush=True)
        sys.exit(3)
    if "hangs-at-start" in HABITS:
        print("one moment", file=sys.stderr, flush=True)
        time.sleep(600)
    if "stubborn" in HABITS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "talks-at-start" in HABITS:
        print("Welcome!\n")
    removed = {"old"} if "changed" in HABITS else set()
    for line in sys.stdin:
        LOG.write(line)
        message = json.loads(line)
        if "id" not in message:
            continue
        params, ident = message.get("params", {}), message["id"]
        match message["method"]:
            case "initialize":
                result: dict[str, Any] | None = {
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": {} if "toolless" in HABITS else {"tools": {}},
                    "serverInfo": {"name": "odd", "version": "1"},
                }
            case "tools/list" if "never-lists" in HABITS:
                continue
            case "tools/list" if "lists-for-ever" in HABITS:
                result = {"tools": [], "nextCursor": "again"}
            case "tools/list":
                # Two pages.
                start = int(params.get("cursor", 0))
                result = {"tools": TOOLS[start : start + 13]}
                if start == 0:
                    result["nextCursor"] = "13"
            case "tools/call" if params["name"] in {tool["name"] for tool in TOOLS} - removed - {
                "refuse"
            }:
                token = params.get("_meta", {}).get("progressToken")
                result = call(params["name"], params.get("arguments", {}), token, ident)
            case "tools/call":
                send({"id": ident, "error": {"code": -32602, "message": "no tool of that name"}})
                continue
            case _:
                send({"id": ident, "error": {"code": -32601, "message": "Method not found"}})
                continue
        if result is not None:
            send({"id": ident, "result": result})
    if "stubborn" in HABITS:
        time.sleep(600)


main()
