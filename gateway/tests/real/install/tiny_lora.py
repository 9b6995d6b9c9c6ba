"""Makes a small LoRA adapter with random weights for the tiny model.

usage: tiny_lora.py OUT_DIR [SEED]
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

RANK, HIDDEN, LAYERS = 8, 128, 2
# Heads times their size, see CONFIG of tiny_model.py.
TARGETS = {"q_proj": 4 * 64, "v_proj": 2 * 64}
CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "tiny",
    "r": RANK,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "bias": "none",
    "target_modules": list(TARGETS),
    "inference_mode": True,
}


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    tensors = {}
    for layer in range(LAYERS):
        for name, width in TARGETS.items():
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(RANK, HIDDEN) * 0.02
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(width, RANK) * 0.02
    save_file(tensors, out / "adapter_model.safetensors")
    (out / "adapter_config.json").write_text(json.dumps(CONFIG, indent=1))


if __name__ == "__main__":
    main()
