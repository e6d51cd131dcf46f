"""Models for a LiteLLM proxy whose answers are known beforehand: the tests' counterpart. It ends with its stdin."""
import json
import os
import sys
import threading

import litellm
from litellm import CustomLLM

# A test that dies takes its server along.
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()

limited = set()


def words(text):
    """Yields a text in pieces."""
    return [{"text": text[at:at + 7]} for at in range(0, len(text), 7)]


def calls(*tools):
    """Yields tool calls, their arguments in two pieces."""
    pieces = []
    for index, (name, arguments) in enumerate(tools):
        text = json.dumps(arguments)
        for part in (text[:5], text[5:]):
            function = {"name": name if part == text[:5] else None, "arguments": part}
            call = {"id": f"call_{index}", "type": "function", "function": function, "index": index}
            pieces.append({"text": "", "tool_use": call})
    return pieces


def answer(model, messages):
    """The pieces of a model's answer to a conversation, and why it ends."""
    last = messages[-1]
    content = last.get("content")
    said = content if isinstance(content, str) else "".join(part.get("text", "") for part in content or [])
    asked = sum(message["role"] == "tool" for message in messages)
    if model == "plain":
        return words(f"You said: {said}"), "stop"
    if model == "limited":
        # Too busy for every request once.
        if said not in limited:
            limited.add(said)
            raise litellm.RateLimitError("the mock wants a pause", "mock", model)
        return words("at last"), "stop"
    if model == "tools" and last["role"] == "tool":
        return words(f"The tool said: {said}"), "stop"
    if model == "tools":
        return words("I look.") + calls(("ls", {"path": "."}), ("pwd", {})), "tool_calls"
    if model == "agent":
        tools = [("shell", {"command": "echo score 0.75 > /workspace/answer.txt"}), ("submit", {})]
        return words("Next.") + calls(tools[min(asked, 1)]), "tool_calls"
    if model == "text":
        return words('I look.\n```json\n{"tool": "ls", "arguments": {"path": "."}}\n```'), "stop"
    raise ValueError(f"the mock has no model {model}")


class Mock(CustomLLM):
    async def astreaming(self, model, messages, *args, **kwargs):
        pieces, finish = answer(model, messages)
        usage = {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49}
        for piece in pieces:
            yield {"tool_use": None, "is_finished": False, "finish_reason": "", "usage": None, "index": 0} | piece
        yield {"text": "", "tool_use": None, "is_finished": True, "finish_reason": finish, "usage": usage, "index": 0}

    async def acompletion(self, model, messages, *args, **kwargs):
        pieces, finish = answer(model, messages)
        text = "".join(piece["text"] for piece in pieces)
        return litellm.completion(model="gpt-4o", messages=messages, mock_response=text)


mock = Mock()
