"""Writes chat_template_cases.json: what jinja2, set up as transformers sets it
up, makes of the templates below.
Needs: pip install jinja2==3.1.6 transformers==5.24.0

    python3 tests/text/data/make_templates.py
"""

import datetime
import json
import pathlib

from transformers.utils import chat_template_utils

NOW = 1700000000  # 2023-11-14 22:13:20 UTC


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, zone=None):
        return cls.fromtimestamp(NOW, datetime.timezone.utc)


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
{% raw %}{{ x }} {% if %} {# c #}{% endraw %}|{%- raw -%}  {{ y }}  {%- endraw -%}  z
a {% raw %} b {% endraw %} c {%+ raw %} d {%+ endraw +%} e
{% with a=1, b=2 %}{{ a }}{{ b }}{% set c = 3 %}{% endwith %}{{ a }}{{ c }}|{% set a = 5 %}{% with a=a+1, b=a %}{{ a }}{{ b }}{% endwith %}{{ a }}{% with %}{% set a = 9 %}{{ a }}{% endwith %}{{ a }}{% with (p, q) = (1, 2) %}{{ p }}{{ q }}{% endwith %}
{% filter upper %}abc {{ 'def' }}{% endfilter %}|{% filter replace('a', 'b') | trim %} aaa {% endfilter %}|{% for i in [1, 2] %}{% filter upper %}a{% if i == 2 %}{% break %}{% endif %}{% endfilter %}-{% endfor %}
{% macro box(t, w='x') %}<{{ w }}>{{ caller() }}{{ t }}</{{ w }}>{% endmacro %}{% call box('T') %}body{% endcall %}|{% call box('T', w='y') %}{{ 1 + 1 }}{% endcall %}
{% macro list(items) %}{% for i in items %}{{ caller(i, loop.index) }};{% endfor %}{% endmacro %}{% call(item, n=7, m=8) list(['a', 'b']) %}{{ n }}:{{ item }}{{ m }}{% endcall %}
{% macro v(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ v(1, 2, 3, b=4) }}{{ v() }}{{ v(a=1) }}{% macro w() %}{{ caller is defined }}{% endmacro %}{{ w() }}{% call w() %}{% endcall %}
{% macro f(a, b=a, c=b~'!') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }} {{ f(1, 2) }} {{ f(*[1, 2, 3]) }} {{ f(**{'a': 7, 'c': 8}) }} {{ f(4, *[5], **{'c': 6}) }} {{ f(b=1, a=2) }}
{% for x in [[1, [2, []]], [3, []]] recursive %}{{ loop.depth }}{{ loop.depth0 }}{{ loop.index }}({% for y in x if y is sequence %}{% endfor %}{{ x[0] }}{% if x[1] %}{{ loop([x[1]]) }}{% endif %}){% endfor %}
{% for n in [{'v': 1, 'c': [{'v': 2, 'c': []}, {'v': 3, 'c': [{'v': 4, 'c': []}]}]}] recursive %}<{{ n.v }}{{ loop(n.c) }}>{% else %}-{% endfor %}
{% for i in [1, 1, 2, 2, 1] %}{{ loop.changed(i) }}{{ loop.cycle('a', 'b') }} {% endfor %}{% for i in [1, 2] %}{{ loop.changed(i, i % 1) }}{% endfor %}
{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% else %}else{% endfor %}|{% for i in [1] %}{% break %}{% else %}else{% endfor %}|{% for i in [1, 2] %}{% continue %}{% else %}else{% endfor %}
{% set ns = namespace(stop=false) %}{% for i in range(5) if not ns.stop %}{{ i }}{% if i == 2 %}{% set ns.stop = true %}{% endif %}{% endfor %}
{% for i in [1, 2, 3] %}{% set x %}a{% if i == 2 %}{% break %}{% endif %}{% endset %}{{ x }}{{ i }}{% endfor %}
{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}{% for a, (b, (c, d)) in [[1, [2, 'xy']]] %}{{ a }}{{ b }}{{ c }}{{ d }}{% endfor %}{% set (a, b), c = (1, 2), 3 %}{{ a }}{{ b }}{{ c }}
{% set ns = namespace() %}{% set ns.a, b = 1, 2 %}{{ ns.a }}{{ b }}{% set ns2 = namespace({'a': 1}, b=2) %}{{ ns2.a }}{{ ns2.b }}{{ ns2['a'] }}|{% set ns3 = namespace([('k', 5)]) %}{{ ns3.k }}
{{ [3, 1, 2] | sort }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A', 'c'] | sort(case_sensitive=true) }} {{ [3, 1, 2] | sort(reverse=true) }} {{ [{'n': 2, 'm': 1}, {'n': 1, 'm': 2}] | sort(attribute='n') }} {{ [{'n': 1, 'm': 2}, {'n': 1, 'm': 1}] | sort(attribute='n,m') }} {{ 'hello' | sort }} {{ {'b': 1, 'a': 2} | sort }}
{{ {'b': 1, 'A': 2, 'c': 0} | dictsort }} {{ {'b': 1, 'A': 2} | dictsort(true) }} {{ {'b': 1, 'A': 2} | dictsort(by='value') }} {{ {'b': 1, 'A': 2} | dictsort(reverse=true) }} {{ {} | dictsort }}
{{ [1, 2, 1, 'a', 'A'] | unique | list }} {{ ['a', 'A'] | unique(true) | list }} {{ [{'n': 1}, {'n': 1}, {'n': 2}] | unique(attribute='n') | list }} {{ 'hello' | unique | join }}
{{ [{'c': 'x', 'n': 1}, {'c': 'y', 'n': 2}, {'c': 'X', 'n': 3}] | groupby('c') }} {% for g, l in [{'c': 'x', 'n': 1}, {'c': 'y', 'n': 2}] | groupby('c') %}{{ g }}:{{ l | map(attribute='n') | join }} {% endfor %}{% for g in [{'c': 1}, {}] | groupby('c', default=0) %}{{ g.grouper }}{{ g.list }}{% endfor %}
{{ [1, 5, 3] | max }} {{ [1, 5, 3] | min }} {{ ['b', 'A'] | min }} {{ ['b', 'A'] | max(case_sensitive=true) }} {{ [] | max }}| {{ [{'n': 2}, {'n': 3}] | max(attribute='n') }} {{ [1, 2, 3] | sum }} {{ [{'n': 2}, {'n': 3}] | sum(attribute='n') }} {{ [1.5, 2] | sum }} {{ [[1], [2]] | sum(start=[]) }} {{ [1] | sum(start=10) }}
{{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [1, 2, 3] | batch(2, 'x') | list }} {{ [1, 2, 3, 4, 5] | slice(2) | list }} {{ [1, 2, 3, 4, 5] | slice(3, 'x') | list }} {{ [] | batch(3) | list }}
{{ -5 | abs }} {{ (-5) | abs }} {{ (-1.5) | abs }} {{ 42.55 | round }} {{ 42.55 | round(1) }} {{ 42.55 | round(1, 'floor') }} {{ 42.51 | round(0, 'ceil') }} {{ 2.5 | round }} {{ 3.5 | round }} {{ 7 | round }} {{ 15 | round(-1) }} {{ 25 | round(-1) }} {{ 2.675 | round(2) }} {{ true | round }} {{ 1234.5 | round(-2) }}
{{ 'foo' | center(9) }}| {{ 'ab' | center(5) }}| {{ 'abc' | center(6) }}| {{ 'a b  c_d é1' | wordcount }} {{ 'foo bar baz qux' | truncate(9) }} {{ 'foo bar baz qux' | truncate(9, true) }} {{ 'foo bar baz qux' | truncate(11) }} {{ 'foo bar baz qux' | truncate(5, end='') }} {{ 'foobarbazquxfoo' | truncate(8, false, '..', 0) }}
{{ '%s-%s' | format(1, 'a') }} {{ '%(a)s' | format(a=5) }} {{ '%s' % 5 }} {{ '%s %r %d' % ('x', 'y', 3.9) }} {{ '%05d|%-5d|%+d|% d' % (42, 42, 42, 42) }} {{ '%.2f|%8.3f|%e|%g|%G' % (1.005, 2.5, 12345.678, 0.00001, 1e20) }} {{ '%x %X %o %#x' % (255, 255, 8, 255) }} {{ '%%' % () }} {{ '%10s|%-10s|%.2s' % ('a', 'b', 'xyz') }} {{ '%c%c' % ('a', 'b') }} {{ '%*d' % (5, 3) }} {{ '%(k)s' % {'k': 1} }} {{ 'x' % {} }} {{ 'x' % [] }} {{ '%s' % none }} {{ '%s' % nothing }}|
{{ '{} {}'.format(1, 'a') }} {{ '{1} {0}'.format(1, 2) }} {{ '{a} {b[0]} {c[k]}'.format(a=1, b=[2], c={'k': 3}) }} {{ '{:>5}|{:<5}|{:^5}|{:*^5}'.format('a', 'b', 'c', 'd') }} {{ '{:05d} {:+d} {:,} {:_}'.format(42, 42, 1234567, 1234567) }} {{ '{:.2f} {:8.2f} {:e} {:%} {:g}'.format(1.005, 2.5, 1234.5, 0.25, 1e10) }} {{ '{:x} {:b} {:o} {:#x} {:X}'.format(255, 5, 8, 255, 255) }} {{ '{!r} {!s}'.format('a', 'b') }} {{ '{{}} {{{}}}'.format(1) }} {{ '{:{}}|'.format('a', 5) }} {{ '{:.3}'.format('abcdef') }} {{ '{:.3}'.format(3.14159) }} {{ '{:10}|'.format(1.5) }} {{ '{}'.format(none) }} {{ '{0.n}'.format({'n': 1}) }}
{{ 'abcabc'.index('c') }} {{ 'abcabc'.rindex('c') }} {{ 'abcabc'.rfind('b') }} {{ 'abc'.find('c', 1) }} {{ 'abcabc'.find('a', 1) }} {{ 'abcabc'.find('a', 1, 3) }} {{ 'abcabc'.count('a', 1) }} {{ 'héllo'.find('l', 3) }} {{ 'abc'.startswith('b', 1) }} {{ 'abc'.endswith('b', 0, 2) }} {{ 'abc'.find('') }} {{ 'abc'.rfind('') }} {{ 'abc'.find('', 5) }} {{ 'é😀a'.rfind('a') }} {{ 'abc'.find('a', -3) }}
{{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'abc'.partition('-') }} {{ 'abc'.rpartition('-') }} {{ 'a\nb\r\nc\x0bd\u2028e\n'.splitlines() }} {{ 'a\nb'.splitlines(true) }} {{ 'a\n\nb'.splitlines(keepends=true) }} {{ ''.splitlines() }}
{{ 'a'.ljust(3) }}| {{ 'a'.rjust(3) }}| {{ 'a'.center(4) }}| {{ 'ab'.center(5, '*') }} {{ '42'.zfill(5) }} {{ '-42'.zfill(5) }} {{ 'é'.ljust(3, '.') }} {{ 'aBc'.swapcase() }} {{ 'ABC'.casefold() }} {{ 'abc'.zfill(2) }} {{ '+1'.zfill(4) }}
{{ 'abc'.isalpha() }} {{ 'ab1'.isalpha() }} {{ 'ab1'.isalnum() }} {{ '12'.isdigit() }} {{ ''.isdigit() }} {{ ' \t'.isspace() }} {{ 'AB'.isupper() }} {{ 'aB'.islower() }} {{ 'a1'.islower() }} {{ '1'.isupper() }} {{ 'é'.isascii() }} {{ '½'.isnumeric() }} {{ '½'.isdecimal() }} {{ 'é中'.isalpha() }}
{{ '  a  b c '.rsplit(none, 1) }} {{ 'a b c'.rsplit() }} {{ ' a  b c  '.split(none, 1) }} {{ ' a b '.rsplit(none, 2) }} {{ '+-5' | int }} {{ '+-5' | float }} {{ '1e400' | float }} {{ 'a b c'.split(maxsplit=1) }} {{ 'a,b,c'.split(sep=',', maxsplit=1) }} {{ ' a b '.split(' ') }} {{ 'abc'.rsplit('b') }} {{ '1,2,3'.rsplit(',', 1) | last }}
{{ [1, 2, 3].index(2) }} {{ [1, 2, 1].count(1) }} {{ (1, 2).index(2) }} {{ [1].copy() }} {{ {'a': 1}.copy() }} {{ 'x'.join({'a': 1, 'b': 2}) }} {{ '-'.join(['a', 'b'] | reverse) }}
{{ {'a': 1, 'b': 2}.items() }} {{ {'a': 1}.keys() }} {{ {'a': 1}.values() }} {{ {'a': 1}.items() | length }} {{ {'a': 1}.keys() | first }} {{ 'a' in {'a': 1}.keys() }} {{ {'b': 1, 'a': 2}.items() | sort }} {{ {'a': 1}.items() | list }} {{ {'a': 1}.items() is sequence }} {{ {}.items() is iterable }} {% if {}.items() %}y{% else %}n{% endif %}
{{ range(3) }} {{ range(1, 7, 2) }} {{ range(5)[1] }} {{ range(5)[-1] }} {{ range(10)[2:5] }} {{ range(10)[::-2] }} {{ range(3) | length }} {{ 2 in range(3) }} {{ range(3) | list }} {{ range(0) | list }} {{ range(3) is sequence }} {{ range(3) == [0, 1, 2] }} {{ range(3) | last }} {{ range(3) | reverse | list }} {{ range(5, 0) | list }}
{% set g = ['a', 'b'] | map('upper') %}{{ g | join }}{{ g | join }}|{% set h = [1, 2, 3] | select('odd') %}{{ h | first }}{{ h | list }}{{ h | first }}|{{ [1, 2] | map('string') is iterable }}{{ [1, 2] | map('string') is sequence }}{% if [] | select %}y{% endif %}{{ 1 in ([1, 2] | map('int')) }}
{{ none | select | list }} {{ none | map('upper') | list }} {{ 0 | selectattr('x') | list }} {{ '' | map('upper') | list }} {{ nothing | map(attribute='x') | list }} {{ nothing | sum }} {{ nothing | sort }} {{ nothing | unique | list }}
{{ [{'a': {'b': 1}}, {'a': {}}] | map(attribute='a.b', default=5) | list }} {{ [['x', 'y'], ['z', 'w']] | map(attribute=1) | list }} {{ [['x', 'y']] | map(attribute='0') | join }} {{ [{'a': [1, 2]}] | map(attribute='a.1') | list }} {{ [{'n': 1}, {'n': 0}] | selectattr('n') | list }} {{ [{'n': 1}, {'n': 5}] | selectattr('n', 'gt', 2) | list }} {{ [{'n': 1}] | rejectattr('n', 'in', [1]) | list }} {{ ['a', 'b'] | map('replace', 'a', 'c') | list }} {{ [1, 2] | map('default', 3) | list }} {{ ['1', 'x'] | map('int', default=9) | list }}
{{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 0xff_ff }} {{ 1_0.5 }} {{ 00 }} {{ 1e3 }} {{ 1.5E-3 }} {{ [1,[2,3]].1.0 }} {{ 1if true else 2 }}
{% set ünï = 1 %}{{ ünï }}{% set 变量 = 'x' %}{{ 变量 }}{{ {'clé': 2}.clé }}
{{ {(1, 2): 'a'}[1, 2] }} {{ {(): 'e'}[()] }} {{ {1: 'a'}[1.0] }} {{ {1: 'a'}[true] }} {{ {'a': 1}['b'] }}| {{ [1, 2]['x'] }}| {{ 'abc'['x'] }}| {{ none['x'] is defined }} {{ 5['x'] is defined }} {{ [1][none] is defined }} {{ {}[[]] is defined }}
{{ 3 is divisibleby(2) }} {{ 4.0 is even }} {{ 3.5 is odd }} {{ 'ABC' is upper }} {{ 'abc' is lower }} {{ 'a' is upper }} {{ 5 is upper }} {{ 'upper' is filter }} {{ 'nope' is filter }} {{ 'odd' is test }} {{ nothing is sequence }} {{ nothing is iterable }} {{ nothing is callable }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 1 is le 1 }} {{ 2 is ge 3 }} {{ 1 is equalto 1 }} {{ 2 is greaterthan 1 }} {{ 1 is lessthan 1 }} {{ 'a' is in 'abc' }} {{ none is sameas none }} {{ 1 is sameas true }} {{ [] is sameas none }} {{ 5 is not none }}
{% if false %}{{ 1 | nofilter }}{% endif %}{{ 1 if true else 2 | nofilter }}{{ (1 | nofilter) if false else 3 }}{% if false %}{{ 1 is notest }}{% endif %}ok
{{ 'x' if false else 'y' if true else 'z' }} {{ ('a' if x.n > 5) }} {{ (1, 2)[0] }} {{ (1,)[0] }} {{ [1, 2, 3][1:][0] }} {{ 'abc'[1:].upper() }} {{ ('a' ~ 'b').upper() }} {{ 'abc' | upper ~ '!' }} {{ x.text.upper() | lower }} {{ (x.list | first).name }} {{ (x.list | map(attribute='name') | list)[0] }}
{{ 1 + 1.5 }} {{ 2 ** 0.5 }} {{ 10 / 4 }} {{ 10 // 4.0 }} {{ -7 // 2.0 }} {{ 7 % -2.5 }} {{ 1e308 * 10 }} {{ -1e308 * 10 }} {{ 0.1 + 0.7 }} {{ 1 / 3 }} {{ 1e22 }} {{ 1e21 + 1 }} {{ 123456789.123456789 }} {{ 5e-324 }} {{ 1.7976931348623157e308 }} {{ 100000000000000000000.0 }} {{ 9007199254740993 }} {{ 3.0 }} {{ -0.5 | int }} {{ 2 ** 62 }} {{ 7 // 7.5 }} {{ true / 2 }}
{{ 'a' < 'B' }} {{ 'é' > 'z' }} {{ (1, 2) < (1, 3) }} {{ [1] == (1,) }} {{ 1 == '1' }} {{ none == false }} {{ [] == false }} {{ {'a': 1} == {'a': 1} }} {{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }} {{ 1 < 2 == true }} {{ 'a' in ['a'] == true }} {{ not 'a' in 'b' }} {{ 2 > 1 > 0 }} {{ [1, 2] in [[1, 2]] }} {{ none in [none] }} {{ 1.0 in [1] }}
{{ {'a': none, 'b': nothing is defined} | tojson }} {{ [1, 2] | tojson(indent=0) }} {{ [1, [2]] | tojson(indent='--') }} {{ {'a': []} | tojson(indent=1, separators=(';', '=')) }} {{ {10: 'a', 9: 'b'} | tojson(sort_keys=true) }} {{ {'é': '\u2028'} | tojson(ensure_ascii=true) }} {{ 1.0 | tojson }} {{ 1e-7 | tojson }} {{ true | tojson }} {{ {'a': {'b': [1, {}]}} | tojson(indent=4) }} {{ 'a/b<c>&\'"' | tojson }}
{{ 'a\nb\n' | indent }}| {{ 'a\r\nb\u2028c' | indent(2) }}| {{ '\n\na' | indent(2, first=true, blank=true) }}| {{ '' | indent(2, true) }}| {{ 'a\nb' | indent('> ') }}| {{ 'x' | indent(first=true) }}|
{{ '12' | int(base=8) }} {{ '0x1f' | int(base=16) }} {{ 'ff' | int(0, 16) }} {{ '1_000' | int }} {{ '--1' | int }} {{ '-5' | int }} {{ '1e3' | int }} {{ '1.9' | int }} {{ [] | int }} {{ '' | int }} {{ 'nan' | float }} {{ 'inf' | float }} {{ '1e3' | float }} {{ '-.5' | float }} {{ '1_0.5' | float }} {{ 'x' | float(2.5) }} {{ none | float }} {{ 3 | float }} {{ 'inf' | int }} {{ ' 7 ' | float }}
{{ {'pop': 1, 'update': 2, 'x': 3}.pop }}|{{ {'items': 1}['items'] }}|{{ {'keys': 5}.values() | list }}|{{ {'name': 'a', 'get': 'b'}['get'] }}|{{ [1, 2].append }}|{{ {'copy': 1}.x is defined }}
{{ dict([('a', 1)]) }} {{ dict({'a': 1}, b=2) }} {{ dict() }} {{ dict(a=1).a }} {{ dict(**{'x': 1}) }} {{ dict([['k', 'v']], z=0) | tojson }}
{%- set a -%} x {%- endset -%} {{ a }}|{% set b | trim | upper %}  q  {% endset %}{{ b }}|{% set c | replace('a', 'b') %}aa{% endset %}{{ c }}
{% macro outer() %}{% macro inner(x) %}[{{ x }}]{% endmacro %}{{ inner(1) }}{{ inner(2) }}{% endmacro %}{{ outer() }}{% set y = 'late' %}{% macro l() %}{{ y }}{% endmacro %}{% set y = 'later' %}{{ l() }}{% macro e(x) %}{% if x %}{{ x }}{{ e(x[1:]) }}{% endif %}{% endmacro %}{{ e('abc') }}
{% for i in [1, 2] %}{% set v = i %}{% for j in [3] %}{{ v }}{{ loop.index }}{% set v = j %}{{ v }}{% endfor %}{{ v }}{{ loop.last }}{% endfor %}{{ v is defined }}{% for i in [] %}{% else %}{% set w = 1 %}{% endfor %}{{ w is defined }}
{% for c in 'ab' %}{% for d in 'xy' %}{{ c }}{{ d }}{{ loop.first }}{% if loop.last %}!{% endif %}{% endfor %}{{ loop.index }}{% endfor %}{% for k, v in {'a': 1, 'b': 2}.items() if v > 1 %}{{ k }}{{ loop.length }}{% endfor %}{% for i in range(4) if i is odd %}{{ loop.index }}{{ loop.revindex }}{{ loop.previtem }}{{ loop.nextitem }},{% endfor %}
{% generation %}{% set q = 1 %}{{ q }}{% endgeneration %}{{ q is defined }}{% generation %}{% for i in [1, 2] %}{{ i }}{% endfor %}{% endgeneration %}
{{ '<a>' | safe }} {{ '<a>' | safe + '<&>' }} {{ '"' ~ ('<' | safe) ~ '>' }} {{ "'" + ('<b>' | safe | upper) + '>' }} {{ ('<' | safe) * 2 + '<' }} {{ ('<' | safe) == '<' }} {{ '<' | safe | tojson }} {{ ('<' | safe | replace('<', 'x<')) + '<' }} {{ 5 | safe }} {{ ['<' | safe, 'b'] | join('<') }} {{ '<' | safe is string }} {{ ['<' | safe] }}
{{ strftime_now('%H:%M:%S %j %a %A %b %B %y %%') }} {{ strftime_now('') }}| {{ strftime_now is defined }} {{ raise_exception is callable }}
{{ x is defined is true }}
{{ x | first[0] }}
{{ 'a' | upper.x }}
{{ 1 | nofilter }}
{% for i in [] %}{{ i is notest }}{% endfor %}
{% if false %}{% for i in [] %}{{ i | nofilter }}{% endfor %}{% endif %}
{% macro m() %}{{ 1 | nofilter }}{% endmacro %}
{{ [1] | map('nofilter') | list }}
{{ [1] | select('notest') | list }}
{{ [1] | map('nofilter') is iterable }}
{{ ([1, 2] | map('string'))[0] }}|{{ ([1, 2] | map('string')).x is defined }}
{{ [1, 2] | map('string') | length }}
{{ [1, 2] | map('string') | last }}
{{ [1, 2] | map('string') | tojson }}
{{ {'a': 1}.items() | tojson }}
{{ {'a': 1}.items()[0] }}|{{ {'a': 1}.keys()[0] is defined }}
{{ range(3) | tojson }}
{{ range(3) + [1] }}
{{ [1, 'a'] | sort }}
{{ [{'n': 1}, {}] | sort(attribute='n') }}
{{ [none, 1] | max }}
{{ ['a', 'b'] | sum }}
{{ [[]] | unique | list }}
{{ {1: 2, 'a': 3} | tojson(sort_keys=true) }}
{{ {1: 2, 'a': 3} | dictsort }}
{{ [1] | dictsort }}
{{ {'a': 1} | dictsort(by='x') }}
{{ [1] | groupby }}
{{ 'abc' | abs }}
{{ 'abc' | round }}
{{ 1.5 | round(0, 'up') }}
{{ nothing | int }}
{{ nothing | float }}
{{ 'inf' | float | int }}
{{ 5 | indent }}
{{ 5 | truncate }}
{{ 'abc' | truncate(2) }}
{{ 'a' * 20 | truncate(2) }}
{{ '%d' % 'a' }}
{{ '%s %s' % 1 }}
{{ '%s' % (1, 2) }}
{{ '%(a)s' % {} }}
{{ '%z' % 1 }}
{{ '%' % 1 }}
{{ '{} {}'.format(1) }}
{{ '{'.format(1) }}
{{ '}'.format(1) }}
{{ '{0} {}'.format(1, 2) }}
{{ '{a}'.format(b=1) }}
{{ '{:d}'.format('a') }}
{{ '{:q}'.format(1) }}
{{ 'abc'.index('z') }}
{{ [1].index(2) }}
{{ 'abc'.strip(chars='a') }}
{{ 'abc'.replace(old='a', new='b') }}
{{ {}.get(key='a') }}
{{ {}.get() }}
{{ {}.get([]) }}
{{ [] in {} }}
{{ {[]: 1} }}
{{ {([],): 1} }}
{{ 'abc'.partition('') }}
{{ 'abc'.ljust('x') }}
{{ 'abc'.center(9, 'xy') }}
{{ 'abc'.upper(1) }}
{{ [1].append(2) }}
{{ {'a': 1}.pop('a') }}
{{ {'a': 1}.update({}) }}
{{ namespace(_a=1) }}
{% set ns = namespace() %}{% set ns._x = 1 %}
{% macro m(a) %}{% endmacro %}{{ m(1, a=2) }}
{% macro m(a) %}{% endmacro %}{% call m(1) %}{% endcall %}
{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}
{% call 5 %}{% endcall %}
{% call x.n() %}{% endcall %}
{% macro m(a=1, b) %}{% endmacro %}
{% for i in [1] %}{{ loop(i) }}{% endfor %}
{% for loop in [1] %}{% endfor %}
{% for i in [1] %}{% set loop = 1 %}{% endfor %}
{% set true = 1 %}
{% for i in [1] %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}
{% for i in [1] %}{% generation %}{% break %}{% endgeneration %}{% endfor %}
{% for i in [1] %}{% else %}{% break %}{% endfor %}
{% raw %}never ends
{% with a %}{% endwith %}
{% filter %}{% endfilter %}
{% filter nofilter %}{% endfilter %}
{% filter upper %}
{% set a, b = 1 %}
{% set a, b = [1] %}
{% set (a, b), c = (1, 2), 3, 4 %}
{{ f(a=1, a=2) }}
{{ f(a=1, 2) }}
{{ dict(**5) }}
{{ dict(*5) }}
{{ dict(a=1, **{'a': 2}) }}
{{ x[1:] }}
{{ x.f[1:] }}
{{ x.list['a':] }}
{{ x.list[::0] }}
{{ nothing[1:] }}
{{ 0.0 ** -1 }}
{{ [1][::0] }}
{{ nothing[0] }}
{{ nothing.a }}
{{ nothing['a'] }}
{{ nothing < 1 }}
{{ -nothing }}
{{ -'a' }}
{{ +'a' }}
{{ 'a' - 'b' }}
{{ [1] + (2,) }}
{{ {} + {} }}
{{ 'a' * 'b' }}
{{ 1.5 * 'a' }}
{{ none + 1 }}
{{ 2 ** 'a' }}
{{ 0 ** -1 }}
{{ 1 // 0 }}
{{ 1.0 / 0 }}
{{ 1.0 // 0.0 }}
{{ 10.0 ** 400 }}
{{ none < 1 }}
{{ {} < {} }}
{{ [] | first.x }}
{{ ([] | first).x }}
{{ x.list[5].name }}
{{ range() }}
{{ range('a') }}
{{ range(1, 2, 0) }}
{{ range(stop=3) }}
{{ strftime_now() }}
{{ strftime_now(5) }}
{{ raise_exception() }}
{{ raise_exception('a', 'b') }}
{{ 'a'() }}
{{ x() }}
{{ loop.index }}
{{ caller() }}
{{ 1 2 }}
{{ 'a' 1 }}
{{ a. }}
{{ a[ }}
{{ a[1:2, 3] }}
{{ (1, 2 }}
{{ {1: 2, } }}{{ {1 2} }}
{{ 012 }}
{{ 1abc }}
{{ 'a' is }}
{{ is }}
{{ }}
{% %}
{% endif %}
{% else %}
{% if true %}{% endfor %}
{% for i in %}{% endfor %}
{% for in x %}{% endfor %}
{% set %}
{% set x %}
{% set 5 = 1 %}
{% set x.y.z = 1 %}
{% macro %}{% endmacro %}
{% macro m %}{% endmacro %}
{% continue %}
{{ a ! b }}
{{ a & b }}
{{ @ }}
{{ "abc' }}
{{ 'a\x4' }}
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
    "a\n  {% raw %}\n  {{ x }}\n  {% endraw %}\nb",
    "a\n  {%- raw -%}\n  {{ x }}\n  {%- endraw -%}\nb",
    "{% raw %}\n{% endraw %}\n\nb",
    "{%+ raw %} {% x {%+ endraw +%}\nb {% raw %}{% endrawx %}{% endraw %}",
    "  {% with a=1 %}\n  {{ a }}\n  {% endwith %}\nb",
    "  {% filter upper %}\n  a\n  {% endfilter %}\n",
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


def render(source, given):
    template = chat_template_utils._compile_jinja_template(source)
    return template.render(
        bos_token="<s>", eos_token="</s>", tools=given["arguments"].get("tools"), documents=None,
        messages=given["messages"], add_generation_prompt=given["add_generation_prompt"],
        **{k: v for k, v in given["arguments"].items() if k != "tools"})


def main():
    chat_template_utils.datetime = FixedClock
    results = []
    for name, source, given in cases():
        case = {"name": name, "template": source, **given}
        try:
            case["output"] = render(source, given)
        except Exception as error:  # jinja2 lets many kinds through
            case["error"] = f"{type(error).__name__}: {error}"
        results.append(case)
    path = pathlib.Path(__file__).with_name("chat_template_cases.json")
    path.write_text(json.dumps({"now_unix_seconds": NOW, "cases": results}, indent=1) + "\n")
    failures = sum("error" in case for case in results)
    print(f"{path}: {len(results)} cases, {failures} of them errors")


if __name__ == "__main__":
    main()
