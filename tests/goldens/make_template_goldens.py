"""Writes tests/text/data/template_goldens.json: what transformers makes of real
chat templates (tests/third_party/chat_templates) and many conversations.
Needs: pip install jinja2==3.1.6 transformers==5.24.0

    python3 tests/goldens/make_template_goldens.py

The templates run as apply_chat_template compiles them, on the messages as they
are: what transformers does to messages before (leaving out keys that are null,
other names of reasoning_content) is not the template's doing.
"""

import datetime
import json
import pathlib

import jinja2
from transformers.utils import chat_template_utils

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOW = 1700000000  # 2023-11-14 22:13:20 UTC
SPECIAL_TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, zone=None):
        return cls.fromtimestamp(NOW, datetime.timezone.utc)


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, **more):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a city, in \"°C\" or <b>°F</b>.",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "Its name & country"},
        "days": {"type": "integer", "minimum": 1, "maximum": 7, "default": 3},
        "units": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "exact": {"type": ["boolean", "null"]}},
        "required": ["city"], "additionalProperties": False}}}
CLOCK = {"type": "function", "function": {
    "name": "clock", "description": "", "parameters": {"type": "object", "properties": {}},
    "return": {"type": "string", "description": "ISO 8601"}}}
SYSTEM = turn("system", "Be brief.")
HELLO = turn("user", "Hello!")
HI = turn("assistant", "Hi. What is it?")
SUM = turn("user", "What is 2+2?")
ODD = [
    "  leading and trailing \n\n", "", "\n", "tabs\tand\r\nreturns\x0b\x0c",
    "ünïcödé 你好 😀 e\u0301 \u200b\u00a0", "\"double\" 'single' \\ / `back`",
    "<b>&amp;</b> <|im_end|> <|eot_id|> </s> [INST] [/INST]",
    "{{ 7 * 7 }} {% raise %} {# no comment #} {%- endif -%}",
    "<think>\nhidden\n</think>\n\nshown", "</think>", "a</think>b</think>c<think>d",
    "<tool_response>\n1\n</tool_response>", "\x01\x7f\u2028\ufeff", "0", "None",
]
CALLS = [turn("user", "Weather in Zürich and Oslo?"),
         turn("assistant", "", tool_calls=[call("get_weather", {
             "city": "Zürich \"HB\"", "days": 3, "exact": None, "list": [1, 2.5, 1e20, True, "<é>"],
             "nested": {"a": {}, "b": []}}, id="call12345")]),
         turn("tool", "{\"celsius\": 21.5}", name="get_weather", tool_call_id="call12345"),
         turn("assistant", "21.5 °C.")]
TWO_CALLS = [turn("user", "Both?"),
             turn("assistant", "Let me look.", tool_calls=[
                 call("get_weather", {"city": "Oslo"}, id="aaaaaaaaa"), call("clock", {}, id="bbbbbbbbb")]),
             turn("tool", "sunny", name="get_weather", tool_call_id="aaaaaaaaa"),
             turn("tool", {"time": "12:00"}, name="clock", tool_call_id="bbbbbbbbb"),
             turn("user", "And?")]
THINKING = [HELLO, turn("assistant", "Four.", reasoning_content="2 and 2\nare 4."), SUM,
            turn("assistant", "<think>\nEasy.\n</think>\n\nFour again."), turn("user", "Sure?"),
            turn("assistant", "Yes.", reasoning_content="\nIt is.\n")]


def conversations():
    """(name, messages, arguments, add_generation_prompt)"""
    yield "one turn", [HELLO], {}, True
    yield "one turn, no prompt", [HELLO], {}, False
    yield "system", [SYSTEM, HELLO], {}, True
    yield "turns", [SYSTEM, HELLO, HI, SUM], {}, True
    yield "turns, no prompt", [HELLO, HI, SUM, turn("assistant", " Four. ")], {}, False
    yield "ends with the assistant", [SYSTEM, HELLO, HI], {}, True
    yield "no messages", [], {}, True
    yield "only system", [SYSTEM], {}, True
    yield "only the assistant", [HI], {}, False
    yield "user twice", [HELLO, SUM], {}, True
    yield "system in the middle", [HELLO, HI, SYSTEM, SUM], {}, True
    yield "system twice", [SYSTEM, turn("system", "Be kind."), HELLO], {}, True
    yield "developer", [turn("developer", "Be exact."), HELLO], {}, True
    yield "unknown role", [turn("narrator", "Once upon a time"), HELLO], {}, True
    for index, content in enumerate(ODD):
        yield f"odd content {index}", [turn("system", content), turn("user", content), turn("assistant", content),
                                       turn("user", "?" + content + "?")], {}, index % 2 == 0
    yield "empty system", [turn("system", ""), HELLO], {}, True
    yield "null content", [SYSTEM, HELLO, turn("assistant", None), SUM], {}, True
    yield "null content of the user", [turn("user", None)], {}, True
    yield "no content", [HELLO, {"role": "assistant"}, SUM], {}, True
    yield "no role", [{"content": "x"}], {}, True
    yield "number as content", [turn("user", 5)], {}, True
    yield "parts", [turn("user", [{"type": "text", "text": "Look:"}, {"type": "text", "text": " é"}])], {}, True
    yield "part of a system", [turn("system", [{"type": "text", "text": "S"}]), HELLO], {}, False
    yield "object as content", [turn("user", {"text": "x"})], {}, True
    yield "tools, not used", [SYSTEM, HELLO], {"tools": [WEATHER, CLOCK]}, True
    yield "tools without system", [HELLO, HI, SUM], {"tools": [WEATHER]}, False
    yield "tools in the system", [HELLO], {"tools": [CLOCK], "tools_in_user_message": False}, True
    yield "custom tools", [SYSTEM, HELLO], {"custom_tools": [WEATHER]}, True
    yield "empty tools", [HELLO], {"tools": []}, True
    yield "bare function as tool", [HELLO], {"tools": [WEATHER["function"]]}, True
    yield "call", CALLS[:2], {"tools": [WEATHER]}, False
    yield "call and result", CALLS[:3], {"tools": [WEATHER]}, True
    yield "call, result and answer", [SYSTEM] + CALLS + [HELLO], {"tools": [WEATHER, CLOCK]}, True
    yield "call without tools", CALLS, {}, True
    yield "two calls", TWO_CALLS, {"tools": [WEATHER, CLOCK]}, True
    yield "arguments as text", [HELLO, turn("assistant", None, tool_calls=[
        call("get_weather", "{\"city\": \"Zürich\"}", id="ccccccccc")]), turn("tool", "x", tool_call_id="ccccccccc")], \
        {"tools": [WEATHER]}, True
    yield "bare call", [HELLO, turn("assistant", "", tool_calls=[
        {"name": "clock", "arguments": {"zone": "UTC"}, "id": "ddddddddd"}]), turn("ipython", "noon")], {}, True
    yield "short call id", [HELLO, turn("assistant", "", tool_calls=[call("clock", {}, id="1")])], {}, True
    yield "no calls", [HELLO, turn("assistant", "x", tool_calls=[]), SUM], {}, True
    yield "null calls", [HELLO, turn("assistant", "x", tool_calls=None), SUM], {}, True
    yield "tool result first", [turn("tool", "5"), HELLO], {}, True
    yield "ipython", [SYSTEM, HELLO, HI, turn("ipython", {"output": [1, "a"]}), SUM], {}, True
    yield "built-in tool", [HELLO, turn("assistant", "", tool_calls=[call("brave_search", {"query": "é", "n": "2"})])], \
        {"builtin_tools": ["brave_search", "code_interpreter"]}, True
    yield "reasoning", THINKING, {}, True
    yield "reasoning, thinking on", THINKING[:5], {"enable_thinking": True}, True
    yield "reasoning, thinking off", THINKING[:5], {"enable_thinking": False}, True
    yield "reasoning is not text", [HELLO, turn("assistant", "x", reasoning_content=5)], {}, True
    yield "reasoning with a call", [HELLO, turn("assistant", "", reasoning_content="Look.", tool_calls=[
        call("clock", {})]), turn("tool", "noon"), turn("assistant", "Noon.", reasoning_content="So.")], \
        {"tools": [CLOCK]}, False
    yield "thinking off", [SYSTEM, HELLO], {"enable_thinking": False}, True
    yield "thinking off, no prompt", [SYSTEM, HELLO], {"enable_thinking": False}, False
    yield "thinking as a number", [HELLO], {"enable_thinking": 0}, True
    yield "date", [SYSTEM, HELLO], {"date_string": "1 Jan 2031"}, True
    yield "custom arguments", [SYSTEM, HELLO], {
        "reasoning_effort": "high", "model_identity": "You are Witan.", "xml_tools": [CLOCK], "thinking": True,
        "documents": [{"doc_id": 1, "title": "T", "text": "D"}], "controls": {"length": "long"}}, True


def render(source, messages, arguments, add_generation_prompt):
    arguments = dict(arguments)
    try:
        template = chat_template_utils._compile_jinja_template(source)
        text = template.render(
            messages=messages, tools=arguments.pop("tools", None), documents=arguments.pop("documents", None),
            add_generation_prompt=add_generation_prompt, **{**SPECIAL_TOKENS, **arguments})
    except jinja2.exceptions.TemplateError as error:
        if type(error) is jinja2.exceptions.TemplateError:
            return {"raised": str(error)}
        return {"failed": f"{type(error).__name__}: {error}"}
    except Exception as error:  # jinja2 lets many kinds through
        return {"failed": f"{type(error).__name__}: {error}"}
    return text


def main():
    chat_template_utils.datetime = FixedClock
    given = list(conversations())
    texts = {}
    templates = []
    num_errors = 0
    for path in sorted((ROOT / "tests/third_party/chat_templates").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        results = []
        for _, messages, arguments, prompt in given:
            result = render(source, messages, arguments, prompt)
            if isinstance(result, str):
                result = texts.setdefault(result, len(texts))
            else:
                num_errors += 1
            results.append(result)
        templates.append({"name": path.stem, "results": results})
    table = {
        "now_unix_seconds": NOW, "special_tokens": SPECIAL_TOKENS,
        "conversations": [{"name": name, "messages": messages, "arguments": arguments, "add_generation_prompt": prompt}
                          for name, messages, arguments, prompt in given],
        "texts": list(texts), "templates": templates}
    path = ROOT / "tests/text/data/template_goldens.json"
    path.write_text(json.dumps(table, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{path}: {len(templates)} templates, {len(given)} conversations, {len(texts)} different texts, "
          f"{num_errors} errors, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
