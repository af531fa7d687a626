"""Writes chat_template_cases.json: what jinja2, set up as transformers sets it
up, makes of the templates below. Needs: pip install jinja2==3.1.6

    python3 tests/text/data/make_templates.py
"""

import datetime
import json
import pathlib

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = 1700000000  # 2023-11-14 22:13:20 UTC


def make_environment():
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent,
                          separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def strftime_now(format):
        return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(format)

    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


CHAT = [
    {"role": "system", "content": "  Be brief.\n"},
    {"role": "user", "content": "Hi there, \"you\" & <me>"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello! ünïcödé 😀"},
    {"role": "user", "content": "What's 2+2?\n"},
]
TOOL_CHAT = [
    {"role": "user", "content": "weather?"},
    {"role": "assistant", "content": "",
     "tool_calls": [{"type": "function", "function": {
         "name": "get_weather", "arguments": {"city": "Zürich", "days": 3, "units": None, "ok": True}}}]},
    {"role": "tool", "content": "{\"t\": 21.5}"},
]
TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "It's <b>weather</b>",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}},
                   "required": ["city"], "x": [1, 2.5, 1e20, 1e-7, True, None, []], "y": {}}}}]

LLAMA3 = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("only one tool call at once") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("roles must alternate user/assistant") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, got " + message.role) }}
    {%- endif %}
{%- endfor %}
{{ user_messages | map(attribute='content') | map('trim') | join(' // ') }}
"""

PHI3 = """{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""

QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "<|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' ~ tool_call.name ~ '", "arguments": ' }}
                {{- tool_call.arguments if tool_call.arguments is string else tool_call.arguments | tojson }}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' ~ message.content ~ '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

# Templates that need no messages, by what they try.
SNIPPETS = r"""
{{ 1 }} {{ 1.0 }} {{ 1e16 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} {{ 1.5e300 }} {{ 0.1 + 0.2 }} {{ -0.0 }} {{ 123456789012345678 }}
{{ true }} {{ False }} {{ none }} {{ None }} {{ nothing }}|
{{ nothing is defined }} {{ nothing is not defined }} {{ nothing is undefined }} {{ x.y is defined }} {{ x['y'] is none }}
{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7 / 2 }} {{ 6 / 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 2 ** 3 ** 2 }}
{{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ 1 - -1 }} {{ +3 }} {{ 'a' * 3 }} {{ [1] * 2 }} {{ 'x' ~ 1 ~ none ~ 1.5 ~ true }} {{ 10 - 2 - 3 }} {{ '1' + 2 ~ 3 }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 'a' == 1 }} {{ none == none }} {{ (1,) == [1] }}
{{ not true or true }} {{ not (true or true) }} {{ 1 and 2 }} {{ 0 or 'x' }} {{ '' and 1 }}| {{ none or [] or 'z' }} {{ not not 1 }}
{{ 1 in [1, 2] }} {{ 3 not in [1, 2] }} {{ 'b' in 'abc' }} {{ 'k' in {'k': 1} }} {{ not 1 in [1] }} {{ '' in 'a' }}
{{ 'yes' if 1 else 'no' }} {{ 'yes' if 0 else 'no' }} {{ 'yes' if 0 }}| {{ 1 if 0 else 2 if 0 else 3 }}
{{ [1, 'a', "it's", none, true, 1.0, [], {}, (), (1,), (1, 2)] }}
{{ {'a': 1, 'b': [1, {'c': 'd"e'}], 3: 'x', none: true} }}
{{ ['\n', '\t', '\\', '\x00', 'é', '😀', '\u200b', "a'b\"c", '\x7f', '\u00ad'] }}
{{ 'abc'[0] }} {{ 'abc'[-1] }} {{ 'abc'[5] }}| {{ 'héllo😀x'[1] }} {{ 'héllo😀x'[-2] }} {{ [1, 2, 3][1] }} {{ [1, 2][7] }}| {{ [1, 2].0 }}
{{ 'abcdef'[1:3] }} {{ 'abcdef'[:-2] }} {{ 'abcdef'[::2] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[4:1:-1] }} {{ [1, 2, 3][1:] }} {{ [1, 2, 3][-10:10] }} {{ (1, 2, 3)[:2] }} {{ 'abc'[3:1] }}| {{ 'abc'[none:2] }} {{ 'aé😀b'[::-1] }} {{ [1,2,3][5:0:-2] }} {{ [1,2,3][-5::-1] }}|
{{ '  a b  ' | trim }}| {{ 'xxaxx' | trim('x') }} {{ '  a ' .strip() }}| {{ ' a '.lstrip() }}| {{ ' a '.rstrip() }}| {{ 'xyaxy'.strip('xy') }} {{ '\u00a0\x1fa\u2003' | trim }}|
{{ nothing | default('d') }} {{ '' | default('d') }}| {{ '' | default('d', true) }} {{ none | default('d') }} {{ none | d('e', boolean=true) }} {{ nothing | default }}|
{{ 'héllo😀' | length }} {{ [1, 2] | length }} {{ {'a': 1} | count }} {{ nothing | length }} {{ '' | length }}
{{ 'aBc é ß' | upper }} {{ 'ABC É' | lower }} {{ 'hELLO wORLD' | capitalize }} {{ "hello-wORLD (foo) it's [bar] <x" | title }} {{ "hello-wORLD it's 3d é".title() }} {{ 'aB'.upper() }} {{ 'aB'.lower() }} {{ 'aB cD'.capitalize() }}
{{ [1, 'a', none] | join(',') }} {{ 'abc' | join('-') }} {{ [] | join }}| {{ [{'n': 1}, {'n': 2}] | join('+', attribute='n') }} {{ ', '.join(['a', 'b']) }}
{{ [3, 1, 2] | first }} {{ [3, 1, 2] | last }} {{ 'abc' | first }} {{ 'abc' | last }} {{ [] | first }}| {{ [] | last is defined }}
{{ 'abc' | list }} {{ {'a': 1, 'b': 2} | list }} {{ (1, 2) | list }} {{ [1, 2, 3] | reverse | list }} {{ 'abc' | reverse }}
{% for k, v in {'a': 1, 'b': 2} | items %}{{ k }}={{ v }};{% endfor %}{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}{% for k in {'x': 1, 'y': 2} %}{{ k }}{% endfor %}
{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 'z') }} {{ {'a': 1}.keys() | list }} {{ {'a': 1}.values() | list }} {{ {'get': 5}['get'] }} {{ {'b': 5}.b }} {{ {'a': 1}.zz }}|
{{ 'a.b.c' | replace('.', '-') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 'abc'.replace('b', '') }} {{ 'abc'.replace('', '-') }} {{ 5 | replace(5, 6) }} {{ 'aaa'.replace('a', 'b', 1) }}
{{ 5 | string + 'x' }} {{ 1.50 | string }} {{ [1] | string }} {{ '42' | int + 1 }} {{ 'x' | int }} {{ '3.7' | int }} {{ 3.9 | int }} {{ -3.9 | int }} {{ 'x' | int(7) }} {{ ' 12 ' | int }} {{ '1.5' | float }} {{ 'x' | float }} {{ none | int }} {{ true | int }}
{{ ['a ', ' b'] | map('trim') | list }} {{ ['a', 'b'] | map('upper') | join }} {{ [{'x': {'y': 1}}, {'x': {}}] | map(attribute='x.y', default='-') | list }} {{ ['1', '2'] | map('int') | list }}
{{ [1, 2, 3, 4] | select('odd') | list }} {{ [1, 2, 3, 4] | reject('divisibleby', 2) | list }} {{ [0, 1, '', 'a'] | select | list }} {{ [{'r': 'u', 'n': 1}, {'r': 'a', 'n': 2}] | selectattr('r', 'equalto', 'u') | map(attribute='n') | list }} {{ [{'r': 1}, {}] | selectattr('r', 'defined') | list }} {{ [{'r': 1}, {'r': 0}] | rejectattr('r') | list }} {{ [1, 2, 3] | select('in', [2, 3]) | list }}
{{ 1 is number }} {{ 1.0 is number }} {{ true is number }} {{ '1' is number }} {{ 1 is integer }} {{ true is integer }} {{ 1.0 is float }} {{ true is boolean }} {{ 1 is boolean }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is mapping }} {{ [] is iterable }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ [] is sequence }} {{ 1 is sequence }} {{ none is none }} {{ 0 is none }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 0 is false }} {{ range is callable }} {{ 3 is odd }} {{ 3 is even }} {{ 9 is divisibleby 3 }} {{ 1 is eq 1 }} {{ 2 is gt(1) }} {{ 2 is in [1, 2] }} {{ 1 is not in [1] }} {{ 1 is sameas 1 }}
{{ 'a,b,,c'.split(',') }} {{ '  a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a b c'.split(none, 1) }} {{ 'abc'.split('x') }} {{ ''.split(',') }} {{ ''.split() }} {{ 'a--b'.split('--')[-1] }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'a<t>b'.split('<t>') | last }}
{{ 'hello'.startswith('he') }} {{ 'hello'.endswith('lo') }} {{ 'hello'.startswith(('x', 'he')) }} {{ 'hello'.find('l') }} {{ 'hello'.find('z') }} {{ 'héllo'.find('l') }} {{ 'hello'.count('l') }} {{ 'hello'.removeprefix('he') }} {{ 'hello'.removesuffix('lo') }}
{{ {'a': [1, 2.5, none, true, 'é"\n\\/<>&\u2028']} | tojson }} {{ 'x' | tojson }} {{ [] | tojson }} {{ {} | tojson }} {{ none | tojson }} {{ 1e20 | tojson }} {{ (1, 2) | tojson }} {{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }} {{ '\x01\x7f' | tojson }}
{{ {'b': [1, {'c': []}], 'a': {}} | tojson(indent=2) }}|{{ [1, [2, 3]] | tojson(indent=4) }}|{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}|{{ [1, {'a': 2}] | tojson(separators=(',', ':')) }}|{{ 'é😀' | tojson(ensure_ascii=true) }}
{% for i in range(3) %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }};{% endfor %}
{% for i in [] %}x{% else %}empty{% endfor %}{% for i in nothing %}x{% else %}undefined{% endfor %}{% for i in [1] %}x{% else %}y{% endfor %}
{% for i in range(10) if i % 2 %}{{ i }}{{ loop.length }}{% endfor %} {% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for a, b in [(1, 2), [3, 4]] %}{{ a }}-{{ b }} {% endfor %}{% for c in 'hé' %}[{{ c }}]{% endfor %}{% for i in [1, 2] %}{% for j in [1, 2] %}{{ loop.depth }}{{ i }}{{ j }} {% endfor %}{% endfor %}{% for i in 1, 2 %}{{ i }}{% endfor %}
{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = i + 10 %}{{ x }} {% endfor %}{{ x }}{% if true %}{% set x = 5 %}{% endif %}{{ x }}{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}
{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% set ns.b = i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}
{% set x %}a {{ 1 + 1 }} b{% endset %}[{{ x }}]{% set y | upper %}abc{% endset %}{{ y }}
{% macro m(a, b=2, c='x') %}({{ a }},{{ b }},{{ c }}){% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c='z') }}{{ m() }}{{ m(a=5) | upper }}{{ m(1) | length }}
{% macro fact(n) %}{% if n <= 1 %}1{% else %}{{ n * (fact(n - 1) | int) }}{% endif %}{% endmacro %}{{ fact(5) }}{% set g = 'G' %}{% macro uses() %}{{ g }}{% endmacro %}{{ uses() }}
{{ range(5) | list }} {{ range(2, 5) | list }} {{ range(5, 0, -2) | list }} {{ dict(a=1, b=2) }} {{ strftime_now('%Y-%m-%d %H:%M') }} {{ strftime_now('%d %b %Y') }}
a{# comment #}b {#- strip -#} c {# two
lines #} d {{- ' e ' -}} f
{{ "a'b" }} {{ 'a\'b' }} {{ 'tab\there' }} {{ 'uni\u00e9' }} {{ "two" 'parts' }} {{ 'nl\\n' }} {{ '\q' }} {{ '}}' }} {{ '%}' }} {{ {'a': {'b': 1}}.a.b }}
{{ 1_000 }} {{ 0 }} {{ 1.5e3 }} {{ 2E-2 }}
{{ -1 | string }} {{ -x.n | string }} {{ (-1) ** 2 }} {{ -1 ** 2 }} {{ not 1 == 2 }} {{ 1 + 1 == 2 and 'a' ~ 'b' == 'ab' }} {{ 'a' | upper ~ 'b' }} {{ 'a' ~ 'b' | upper }} {{ [1, 2] | length > 1 }} {{ x.n is defined and x.n > 3 }}
{{ x.list[0].name }} {{ x['list'][-1]['name'] }} {{ x.list | map(attribute='name') | join(', ') }} {{ x.f }} {{ x.n }} {{ x }} {{ x.text }}
{{ [1,2,] }} {{ {'a':1,} }} {{ (1) }} {{ () }} {{ ('a' 'b') }} {{ 1, 2 }}
{{ 'line1\nline2\n\nline3' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb' | indent(1, blank=true) }}|{{ 'a' | safe }}
{{ 'x' is string and 1 is number or false }} {{ 'a' in 'abc' and 'z' not in 'abc' }} {{ (1 if true else 2) + 1 }}
{{ x.n + 1 if x.n is number else 'no' }} {{ x.missing | default('m') | upper }} {{ (x.missing or 'q') }} {{ x.text.split('\n')[0] }} {{ x.text.split('|')[1:] | join('/') }}
{% if nothing %}a{% elif x %}b{% else %}c{% endif %}{% if x.n == 42 and not nothing %}d{% endif %}{% if none %}e{% elif 0 %}f{% endif %}
{{ true + true }} {{ 3 * true }} {{ 'a' == 'a' == 'a' }} {{ 1 != 2 }} {{ 1 <= 1 >= 1 }} {{ {'a': 1} == {'a': 1.0} }} {{ [1, [2]] == [1, [2]] }} {{ nothing == none }} {{ nothing == nothing2 }}
{% generation_is_not_a_tag %}
{{ 1 + 'a' }}
{{ 'a' + 1 }}
{{ nothing + 1 }}
{{ nothing.x.y }}
{{ none.x.y }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ 1 < 'a' }}
{{ 1 in 5 }}
{{ 1 in 'abc' }}
{{ 'a' | nofilter }}
{{ 1 is notest }}
{{ 5 | length }}
{{ 1() }}
{{ nothing() }}
{{ 'abc'.nomethod() }}
{% for i in 5 %}{% endfor %}
{% for i in none %}{% endfor %}
{% for a, b in [1] %}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{% set x.y = 1 %}
{{ raise_exception('no: ' ~ 5) }}
{% if %}{% endif %}
{% if true %}
{% endif %}
{% for x in y %}
{{ 1 + }}
{{ (1 }}
{{ 'abc }}
{{ 1
{# never ends
{% break %}
{{ [1, 2 }}
{{ {1: } }}
{{ a b }}
{{ 'a' | tojson(1, 2, 3, 4, 5) }}
{{ nothing | tojson }}
{{ range(100001) | list }}
{{ {} | first.x }}
{{ ''.join([1]) }}
{{ 'a'.split('') }}
{{ 'a'.startswith(1) }}
{{ namespace(1) }}
{{ 'a' ~ }}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{% endmacro %}{{ m(b=2) }}
{{ x.__class__ }}|{{ ''.__class__ is defined }}|{{ x.list.append is defined and false }}
"""

WHITESPACE = [
    "  {% if true %}\n  a\n  {% endif %}\n b",
    "a\n  {%- if true -%}\n  b\n  {%- endif -%}\n  c\n",
    "x  {% if true %}y{% endif %}  z\n\n",
    "  {%+ if true %}a{% endif +%}\nb\n",
    "  {# c #}\n  a {# d #} b\n",
    "  {{ 1 }}\n  {{- 2 }}\n  {{ 3 -}}\n  4\n",
    "{% for i in [1, 2] %}\n  {{ i }}\n{% endfor %}\nend\n\n",
    "{% for i in [1, 2] -%}\n\n  {{ i }}\n{%- endfor %}\n\nend",
    "a\r\nb\rc\n{% if true %}\r\nd{% endif %}",
    "\t {% set a = 1 %}\n\t{{ a }}{% set b = 2 %}\n {{ b }}",
    "{%- for i in [1] %}\n\n{%- endfor %}",
    "a {#- c -#} b {#+ d #} e",
    "{{ '\n' }}{% if true %}\n\n\n{% endif %}x",
    "\n\n{% if true %}\na{% endif %}\n\n",
    "\u00a0{% if true %}\n\u2003{%- endif %}",
    "{{ 1 }}\n{{ 2 }}\n",
    "{% if true %} \n{% endif %}\n {% if true %}\t{% endif %}",
    "{{-1}} {{- -1}}",
    "a{%if true%}b{%endif%}c{{1}}",
    "{ {{ '{{' }} } {% if true %}{x}{% endif %} %} }} #}",
    "{% generation %}\nabc {{ 1 }}\n{% endgeneration %}\nd",
]

X = {"n": 42, "f": 1.5, "text": "one|two\nthree", "list": [{"name": "p"}, {"name": "q"}]}


def context(messages, **arguments):
    return {"messages": messages, "arguments": arguments,
            "add_generation_prompt": arguments.pop("add_generation_prompt", True)}


def cases():
    for name, source in [("llama3", LLAMA3), ("mistral", MISTRAL), ("phi3", PHI3), ("qwen", QWEN)]:
        for index, messages in enumerate([CHAT, TOOL_CHAT, CHAT[1:], CHAT[:2], []]):
            yield f"{name} {index}", source, context(messages)
        yield f"{name} no prompt", source, context(CHAT, add_generation_prompt=False)
        yield f"{name} tools", source, context(TOOL_CHAT, tools=TOOLS)
        yield f"{name} thinking off", source, context(CHAT, enable_thinking=False)
    lines = SNIPPETS.strip("\n").replace("two\nlines #}", "two\tlines #}").split("\n")
    for index, line in enumerate(lines):
        yield f"snippet {index}", line, context([], x=X)
    for index, source in enumerate(WHITESPACE):
        yield f"whitespace {index}", source, context([])


def render(environment, source, given):
    if "generation %}" in source:  # transparent, as transformers treats it
        environment = environment.overlay()
        environment.add_extension(Generation)
    template = environment.from_string(source)
    return template.render(
        bos_token="<s>", eos_token="</s>", tools=given["arguments"].get("tools"), documents=None,
        messages=given["messages"], add_generation_prompt=given["add_generation_prompt"],
        **{k: v for k, v in given["arguments"].items() if k != "tools"})


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


def main():
    environment = make_environment()
    results = []
    for name, source, given in cases():
        case = {"name": name, "template": source, **given}
        try:
            case["output"] = render(environment, source, given)
        except Exception as error:  # jinja2 lets many kinds through
            case["error"] = f"{type(error).__name__}: {error}"
        results.append(case)
    path = pathlib.Path(__file__).with_name("chat_template_cases.json")
    path.write_text(json.dumps({"now_unix_seconds": NOW, "cases": results}, indent=1) + "\n")
    failures = sum("error" in case for case in results)
    print(f"{path}: {len(results)} cases, {failures} of them errors")


if __name__ == "__main__":
    main()
