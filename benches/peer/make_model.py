"""Writes the model folders that `infer.py` and `infer_once` read: Hugging Face layout, random weights, no tokenizer.

A folder that is complete is left alone, since writing one takes longer than measuring on it.
"""

import argparse
import pathlib

LLAMA = dict(num_attention_heads=8, tie_word_embeddings=False, max_position_embeddings=2048, bos_token_id=None,
             eos_token_id=None)
SMALL = dict(LLAMA, hidden_size=512, num_hidden_layers=8, intermediate_size=1376, vocab_size=2048)
MEDIUM = dict(LLAMA, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=2048, vocab_size=32000)
TINY = dict(LLAMA, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, vocab_size=256)
GPT2 = dict(bos_token_id=None, eos_token_id=None)  # its defaults are the small one's shape

MODELS = {
    "tiny": ("llama", TINY, "float32"),
    "s": ("llama", SMALL, "float32"),
    "m": ("llama", MEDIUM, "float32"),
    "m-bf16": ("llama", MEDIUM, "bfloat16"),
    "gpt2": ("gpt2", GPT2, "float32"),
}


def make(folder, name):
    """The folder of that model, written unless it is there."""
    folder = pathlib.Path(folder) / name
    if (folder / "model.safetensors").is_file():
        return folder
    import torch
    import transformers

    kind, fields, dtype = MODELS[name]
    torch.manual_seed(0)
    config = {"llama": transformers.LlamaConfig, "gpt2": transformers.GPT2Config}[kind](**fields)
    model = transformers.AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size="100GB")
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=pathlib.Path(__file__).resolve().parents[2] / "runs" / "bench-peer" / "models")
    parser.add_argument("names", nargs="*", default=list(MODELS), help=", ".join(MODELS))
    options = parser.parse_args()
    for name in options.names:
        print(make(options.folder, name))


if __name__ == "__main__":
    main()
