"""What the simulated Groq says: texts and their tokens, completions whole and streamed, vectors and sounds. Pure."""

import base64
import itertools
import json
import re
import struct
import time
from typing import Any
from uuid import uuid4

MOST_COMPLETION = 65536  # tokens
MAXIMA = ("max_completion_tokens", "max_tokens", "max_output_tokens")  # of those that are named the largest counts
TIER = "on_demand"


def _quarters(char: str) -> int:
    """Quarters of a token: four Latin letters make one, or two of another alphabet, or one CJK character."""
    return 1 if char < "\u0250" else 2 if char < "\u2e80" else 4


def count_tokens(text: str) -> int:
    return -(-(len(text) if text.isascii() else sum(map(_quarters, text))) // 4)


def cut(text: str, tokens: int) -> str:
    """Return the beginning of ``text`` that fits into ``tokens``."""
    return text[: sum(size <= 4 * tokens for size in itertools.accumulate(map(_quarters, text)))]


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def draft_of(message: dict[str, Any]) -> str:
    """What stands between marks in a message, or all of it where there are none."""
    text = text_of(message).strip()
    marked = re.match(r"<(\w+)>\n(.*)\n</\1>\n", text, re.DOTALL)
    return marked[2] if marked else text


def enhanced(request: dict[str, Any]) -> str:
    """Answer the last user message of a chat request as a prompt enhancer would; the same text for the same message."""
    said = [draft_of(message) for message in request["messages"] if message.get("role") == "user"]
    return (
        "You are a seasoned expert in the subject of this request.\n\n"
        f"Task: {said[-1] if said else 'Help with what follows.'}\n\n"
        "Context: The result is for a curious reader without special knowledge. State the assumptions you make.\n\n"
        "Format: Start with a summary in one sentence, then give the details in short sections with clear headings."
    )


def as_chat(request: Any) -> Any:
    """Return the chat request that a request to /responses amounts to; others as they are."""
    if not isinstance(request, dict) or "input" not in request or "messages" in request:
        return request
    said = request["input"]
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
    return {**request, "messages": messages}


def as_wanted(request: dict[str, Any], text: str) -> str:
    """The same text in JSON mode: an object that holds it."""
    wanted = request.get("response_format")
    in_json = isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema")
    return json.dumps({"answer": text}, ensure_ascii=False) if in_json else text


def tool_calls(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Call the first tool that is offered, unless the last message is a tool's result."""
    tools = request.get("tools") or []
    if not tools or request.get("tool_choice") == "none" or request["messages"][-1].get("role") == "tool":
        return []
    about = tools[0].get("function", {})
    wanted = dict.fromkeys(about.get("parameters", {}).get("required", []), "rain")
    function = {"name": about.get("name", ""), "arguments": json.dumps(wanted)}
    return [{"id": f"fc_{uuid4()}", "type": "function", "function": function}]


def maxima(request: dict[str, Any]) -> list[Any]:
    """What a request names as the most tokens that may answer it."""
    return [request[name] for name in MAXIMA if request.get(name) is not None]


def complaint(request: Any) -> str | None:
    """Say what is wrong with a chat request, if anything."""
    if not isinstance(request, dict):
        return "Failed to parse the request body as a JSON object"
    if not isinstance(request.get("model"), str):
        return "'model' : property 'model' is missing"
    messages = request.get("messages")
    if not isinstance(messages, list):
        return "'messages' : property 'messages' is missing"
    if not messages or not all(isinstance(message, dict) for message in messages):
        return "'messages' : one or more objects are needed"
    if any(type(most) is not int or not 1 <= most < 2**63 for most in maxima(request)):  # Go's integers end there
        return f"`max_completion_tokens` must be between `1` and `{MOST_COMPLETION}`"
    return None


def completion(request: dict[str, Any], said: tuple[str, str], usage: dict[str, Any]) -> dict[str, Any]:
    """Return a finished chat completion that has ``said`` a text, and why it ends there."""
    text, finish = said
    calls = tool_calls(request)
    hidden = request.get("include_reasoning") is False
    reasoning = {} if hidden else {"reasoning": "The user wants a better prompt."}
    message: dict[str, Any] = {"role": "assistant", "content": text, **reasoning}
    if calls:
        message, finish = {"role": "assistant", "tool_calls": calls, **reasoning}, "tool_calls"
    return {
        "id": f"chatcmpl-{uuid4()}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": usage,
        "system_fingerprint": "fp_5bf2a1c0de",
        "x_groq": {"id": f"req_{uuid4().hex}"},
        "service_tier": TIER,
    }


def as_events(whole: dict[str, Any], include_usage: bool) -> list[bytes]:
    """Tell a completion bit by bit, as server-sent events."""
    choice, groq = whole["choices"][0], whole["x_groq"]
    message = choice["message"]
    about = {name: whole[name] for name in ("id", "created", "model", "system_fingerprint")}
    about["object"] = "chat.completion.chunk"

    def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse({**about, "choices": [choice], **more})

    return [
        event({"role": "assistant", "content": ""}, x_groq=groq),
        *(event({"reasoning": message["reasoning"]}) for _ in message.keys() & {"reasoning"}),
        *(event({"tool_calls": [{"index": 0, **tool}]}) for tool in message.get("tool_calls", ())),
        *(event({"content": bit}) for bit in bits(message.get("content", ""))),
        event({}, choice["finish_reason"], x_groq=groq | {"usage": whole["usage"]}),
        *([sse(about | {"choices": [], "usage": whole["usage"], "service_tier": TIER})] if include_usage else []),
        b"data: [DONE]\n\n",
    ]


def usage(prompt: int, said: int, thought: int) -> dict[str, Any]:
    """What a completion took, in tokens; ``said`` includes what was thought."""
    counts = {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}
    times = {"queue_time": 0.002, "total_time": said / 1000}
    return counts | times | {"completion_tokens_details": {"reasoning_tokens": min(thought, said)}}


def bits(text: str) -> list[str]:
    """A text as it is streamed."""
    return re.findall(r"\s*\S{1,8}|\s+", text)


def as_response(whole: dict[str, Any]) -> dict[str, Any]:
    """Return what /responses answers where /chat/completions answers ``whole``."""
    (choice,), usage = whole["choices"], whole["usage"]
    text = {"type": "output_text", "text": choice["message"].get("content", ""), "annotations": [], "logprobs": []}
    said = {"type": "message", "id": f"msg_{uuid4().hex}", "role": "assistant", "status": "completed"}
    return {
        "id": f"resp_{uuid4().hex}",
        "object": "response",
        "created_at": whole["created"],
        "model": whole["model"],
        "status": "incomplete" if choice["finish_reason"] == "length" else "completed",
        "error": None,
        "output": [said | {"content": [text]}],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "service_tier": TIER,
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": usage["completion_tokens_details"],
            "total_tokens": usage["total_tokens"],
        },
    }


def as_response_events(whole: dict[str, Any]) -> list[bytes]:
    """Tell a response bit by bit, as server-sent events that have names, and no [DONE]."""
    (said,) = whole["output"]
    (text,) = said["content"]
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    place = {"item_id": said["id"], "output_index": 0, "content_index": 0}
    told: list[tuple[str, dict[str, Any]]] = [
        ("created", {"response": begun}),
        ("output_item.added", {"output_index": 0, "item": said | {"status": "in_progress", "content": []}}),
        *(("output_text.delta", {**place, "delta": bit, "logprobs": []}) for bit in bits(text["text"])),
        ("output_text.done", {**place, "text": text["text"], "logprobs": []}),
        ("output_item.done", {"output_index": 0, "item": said}),
        (whole["status"], {"response": whole}),
    ]
    return [
        b"event: response.%b\n" % name.encode() + sse({"type": f"response.{name}", "sequence_number": number, **data})
        for number, (name, data) in enumerate(told)
    ]


def form_fields(body: bytes) -> dict[str, bytes]:
    """The first bytes of each field of a multipart form: enough for a name, and to see that a file is there."""
    found = re.findall(rb'name="(\w+)"[^\r\n]*\r\n(?:[\w-]+:[^\r\n]*\r\n)*\r\n([^\r]{0,100})', body)
    return {name.decode(): value for name, value in found}


def vector(text: str, base64_wanted: bool) -> list[float] | str:
    """A text's embedding: the same for the same text."""
    numbers = [((sum(text.encode()) + place) % 97) / 97 for place in range(8)]
    return base64.b64encode(struct.pack("<8f", *numbers)).decode() if base64_wanted else numbers


def tone(text: str) -> bytes:
    """A WAV file of silence, the longer the text the longer."""
    samples = bytes(160 * len(text))
    form = struct.pack("<4sIHHIIHH4sI", b"fmt ", 16, 1, 1, 16000, 16000, 1, 8, b"data", len(samples))
    return struct.pack("<4sI4s", b"RIFF", 4 + len(form) + len(samples), b"WAVE") + form + samples


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def sse(data: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % as_json(data)
