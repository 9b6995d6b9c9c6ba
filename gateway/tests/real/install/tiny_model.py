"""Makes a tiny Qwen3 with random weights around the real Qwen3 tokenizer and chat template.

Two layers of 128, 49 MB, nearly all of it the embedding: a real engine's protocol, blocks and
counters at a prefill cost of 0.1 ms per token on one core. What it says is noise.

usage: tiny_model.py TOKENIZER_DIR OUT_DIR
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "max_window_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 256,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "max_position_embeddings": 40960,
    "rope_theta": 1000000,
    "rope_scaling": None,
    "sliding_window": None,
    "use_sliding_window": False,
}
GENERATION = {
    "bos_token_id": 151643,
    "pad_token_id": 151643,
    "eos_token_id": [151645, 151643],
    "do_sample": True,
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
}


def main() -> None:
    tokenizer, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, out / name)
    config = out / "config.json"
    config.write_text(json.dumps(CONFIG, indent=1))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(out))
    model.to(torch.bfloat16).save_pretrained(out, safe_serialization=True)
    # save_pretrained writes its own view of both files; the plain ones are what we mean.
    config.write_text(json.dumps(CONFIG, indent=1))
    (out / "generation_config.json").write_text(json.dumps(GENERATION, indent=1))


if __name__ == "__main__":
    main()
