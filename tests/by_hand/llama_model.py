"""A GGUF model that says what it is told to, for a real llama.cpp; and the server of it.

Without attention, a model's next token depends on the last one alone: one-hot embeddings make of
the output matrix a table of which follows which. Tokens may be long, so a script is a chain of a
few; where it begins is the last token of the chat template. Run as a program, with the path of a
model, it serves until its standard input ends. Below: `gguf`, and `xllamacpp`, which holds the
server of llama.cpp.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np

CALLS = [
    "<|calls|>",
    '<tool_call>\n{"name": "weather", ',
    '"arguments": {"city": "Paris"}}',
    "\n</tool_call>",
    '\n<tool_call>\n{"name": "weather", "arguments": ',
    '{"city": "Tokyo"}}\n',
    "</tool_call>",
]
ANSWER = ["<|answer|>", "Rain", " in", " Paris", "."]
TEXT = "".join(ANSWER[1:])

# From how it writes calls llama.cpp learns how they are to be read.
TEMPLATE = """
{%- if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}
{% endfor %}</tools>{% endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' %}{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}</s>
{%- elif message.role == 'tool' %}<tool_response>{{ message.content }}</tool_response>
{%- else %}{{ message.content }}
{%- endif %}{% endfor %}
{%- if add_generation_prompt %}
{%- if tools and messages[-1].role != 'tool' %}<|calls|>{% else %}<|answer|>{% endif %}
{%- endif %}"""

_END = 2


def write(path: Path) -> None:
    """Write the model to *path*: a few hundred tokens, a megabyte."""
    kinds = gguf.TokenType
    tokens: list[tuple[str, int]] = [
        ("<unk>", kinds.UNKNOWN),
        ("<s>", kinds.CONTROL),
        ("</s>", kinds.CONTROL),
        *((f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)),
    ]
    follows: dict[int, int] = {}
    for first, *pieces in (CALLS, ANSWER):
        place = len(tokens)
        tokens += [(first, kinds.CONTROL), *((piece, kinds.NORMAL) for piece in pieces)]
        follows.update((at, at + 1) for at in range(place, len(tokens) - 1))
    while len(tokens) % 32:
        tokens.append((f"<|{len(tokens)}|>", kinds.UNUSED))
    size = len(tokens)

    model = gguf.GGUFWriter(path, "llama")
    model.add_context_length(4096)
    model.add_embedding_length(size)
    model.add_feed_forward_length(32)
    model.add_block_count(1)
    model.add_head_count(1)
    model.add_head_count_kv(1)
    model.add_rope_dimension_count(size)
    model.add_layer_norm_rms_eps(1e-6)
    model.add_vocab_size(size)
    model.add_tokenizer_model("llama")
    model.add_token_list([text.replace(" ", "\u2581").encode() for text, _ in tokens])
    model.add_token_scores([0.0] * size)
    model.add_token_types([int(kind) for _, kind in tokens])
    model.add_bos_token_id(1)
    model.add_eos_token_id(_END)
    model.add_unk_token_id(0)
    model.add_add_bos_token(False)
    model.add_add_space_prefix(False)
    model.add_chat_template(TEMPLATE)

    table = np.zeros((size, size), np.float32)
    for token in range(size):
        table[follows.get(token, _END), token] = 5.0
    ones, square = np.ones(size, np.float32), np.zeros((size, size), np.float32)
    narrow = np.zeros((32, size), np.float32)
    model.add_tensor("token_embd.weight", np.eye(size, dtype=np.float32))
    model.add_tensor("output.weight", table)
    model.add_tensor("output_norm.weight", ones)
    block: dict[str, np.ndarray] = {"attn_norm": ones, "ffn_norm": ones}
    block |= {f"attn_{part}": square for part in ("q", "k", "v", "output")}
    block |= {"ffn_gate": narrow, "ffn_up": narrow, "ffn_down": narrow.T.copy()}
    for name, tensor in block.items():
        model.add_tensor(f"blk.0.{name}.weight", tensor)
    model.write_header_to_file()
    model.write_kv_data_to_file()
    model.write_tensors_to_file()
    model.close()


def serve(path: str) -> None:
    """Serve the model at *path*, say where, and go on until standard input ends."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.n_ctx = 4096
    parameters.n_parallel = 1
    parameters.use_jinja = True
    parameters.cpuparams.n_threads = 1
    server = xllamacpp.Server(parameters)
    print(f"\nlistening on {server.listening_address}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1])
