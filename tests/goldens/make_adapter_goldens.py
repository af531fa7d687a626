"""Writes LoRA adapters of the tiny checkpoints in families/, and what they make of them, into adapters/.

    python tests/goldens/make_adapter_goldens.py [NAME ...]   # the packages of examples/witling/requirements.txt and peft

adapters/NAME/ is an ordinary PEFT directory; NAME.safetensors beside it has logits of some positions. The reference is
transformers in float64 with weights w + scale * B A, added up in float64; where PEFT can load the adapter (families
whose experts are not one tensor) it has to agree. Adapters of STACKED are made and saved by PEFT, and the reference is
PEFT in float64. The measure is transformers in bfloat16 with the changed weights rounded to bfloat16.

Tensors in each file: as in families/ (make_family_goldens.py).
"""

import json
import math
import pathlib
import shutil
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

import make_family_goldens as families

OUT = pathlib.Path(__file__).resolve().parent / "adapters"
LENGTHS = [1, 9, 70]
NUM_ROWS_PER_SEQUENCE = 6  # of models with experts, whose routers tie, four times as many
# name: (family, rank, alpha, rsLoRA, ends of the names of the weights that it changes)
ADAPTERS = {
    "llama-attention": ("llama", 8, 16, False, ["q_proj", "k_proj", "v_proj", "o_proj"]),
    "qwen2-all": ("qwen2", 4, 8, True, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
    "phi3-fused": ("phi3", 5, 7, False, ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
    "mixtral-experts": ("mixtral", 8, 16, False, ["q_proj", "o_proj", "w1", "w2", "w3"]),
    "qwen3-moe-experts": ("qwen3-moe", 6, 12, True, ["v_proj", "gate", "gate_proj", "up_proj", "down_proj"]),
}
# name: (family, rank, alpha, rsLoRA, target_modules, target_parameters); of PEFT 0.19 or later
STACKED = {
    "mixtral-stacked": ("mixtral", 4, 8, False, ["v_proj", "o_proj"],
                        ["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"]),
    "qwen3-moe-stacked": ("qwen3-moe", 3, 6, True, ["q_proj"], ["down_proj"]),
}


def write_adapter(directory, family, stored, rank, alpha, rank_stabilised, targets):
    """Returns the merged weights, by name, in float64."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    scale = alpha / (math.sqrt(rank) if rank_stabilised else rank)
    tensors, merged = {}, {}
    for name, weight in stored.items():
        merged[name] = weight.double()
        module = name.removesuffix(".weight")
        if module == name or module.rsplit(".", 1)[-1] not in targets:
            continue
        a = torch.randn(rank, weight.shape[1]) * weight.shape[1]**-0.5
        b = torch.randn(weight.shape[0], rank) * 0.5 / (scale * rank**0.5)
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
        merged[name] = merged[name] + scale * b.double() @ a.double()
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    (directory / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": family, "r": rank, "lora_alpha": alpha,
        "use_rslora": rank_stabilised, "lora_dropout": 0.0, "bias": "none", "use_dora": False, "fan_in_fan_out": False,
        "init_lora_weights": True, "inference_mode": True, "modules_to_save": None, "rank_pattern": {},
        "alpha_pattern": {}, "target_modules": targets}, indent=2) + "\n")
    for path in directory.iterdir():
        path.chmod(0o644)
    return merged


def load_merged(base, merged, dtype):
    """The family's model with other weights, through a directory so that transformers fuses experts by itself."""
    directory = OUT / "merged.tmp"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    config = json.loads((base / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config))
    save_file({name: weight.to(dtype).contiguous() for name, weight in merged.items()}, directory / "model.safetensors",
              metadata={"format": "pt"})
    model = getattr(transformers, config["architectures"][0]).from_pretrained(
        directory, dtype=dtype, attn_implementation="eager", experts_implementation="eager").eval()
    shutil.rmtree(directory)
    return model


def check_peft(base, directory, ids, expected):
    from peft import PeftModel
    config = json.loads((base / "config.json").read_text())
    model = getattr(transformers, config["architectures"][0]).from_pretrained(
        base, dtype=torch.float64, attn_implementation="eager").eval()
    model = PeftModel.from_pretrained(model, directory, autocast_adapter_dtype=False).double().eval()
    with torch.no_grad():
        difference = (model(torch.tensor([ids])).logits[0, -1] - expected).abs().max().item()
    assert difference < 1e-6, f"PEFT differs by {difference}"


def from_base(base, dtype):
    config = json.loads((base / "config.json").read_text())
    return getattr(transformers, config["architectures"][0]).from_pretrained(
        base, dtype=dtype, attn_implementation="eager", experts_implementation="eager")


def make_with_peft(directory, family, rank, alpha, rank_stabilised, modules, parameters):
    """Saves an adapter; returns the reference and the measure."""
    from peft import LoraConfig, PeftModel, get_peft_model
    base = families.OUT / family
    config = LoraConfig(r=rank, lora_alpha=alpha, use_rslora=rank_stabilised, target_modules=modules,
                        target_parameters=parameters, task_type="CAUSAL_LM")
    model = get_peft_model(from_base(base, torch.float32), config)
    scale = alpha / (math.sqrt(rank) if rank_stabilised else rank)
    with torch.no_grad():
        for name, factor in model.named_parameters():
            if ".lora_A." in name:
                factor.normal_(0, factor.shape[1]**-0.5)
            elif ".lora_B." in name:
                factor.normal_(0, 0.5 / (scale * rank**0.5))
    shutil.rmtree(directory, ignore_errors=True)
    model.save_pretrained(directory)
    (directory / "README.md").unlink()
    config_file = directory / "adapter_config.json"
    saved = json.loads(config_file.read_text())
    config_file.write_text(json.dumps({**saved, "base_model_name_or_path": family}, indent=2) + "\n")
    for path in directory.iterdir():
        path.chmod(0o644)

    def load():
        return PeftModel.from_pretrained(from_base(base, torch.float64), directory, autocast_adapter_dtype=False).double()
    return load().get_base_model().eval(), load().merge_and_unload().to(torch.bfloat16).eval()


def make(name, family, rank, alpha, rank_stabilised, targets):
    torch.manual_seed(sum(name.encode()))
    base = families.OUT / family
    merged = write_adapter(OUT / name, family, load_file(base / "model.safetensors"), rank, alpha, rank_stabilised, targets)
    reference, theirs = (load_merged(base, merged, dtype) for dtype in (torch.float64, torch.bfloat16))
    last_ids, exact = write_goldens(name, reference, theirs)
    if not getattr(reference.config, "num_experts_per_tok", None):
        check_peft(base, OUT / name, last_ids, exact)


def write_goldens(name, reference, theirs):
    """Returns the last sequence and the reference's logits at its end."""
    generator = torch.Generator().manual_seed(7)
    offsets, token_ids, positions, logits, errors, exact_routers, rounded_routers = [0], [], [], [], [], [], []
    has_experts = bool(getattr(reference.config, "num_experts_per_tok", None))
    num_rows = NUM_ROWS_PER_SEQUENCE * (4 if has_experts else 1)
    for length in LENGTHS:
        ids = torch.randint(families.VOCAB, (length,), generator=generator).tolist()
        ends = {length} | set((torch.randperm(length, generator=generator)[:num_rows - 1] + 1).tolist())
        for end in sorted(ends):
            exact_routers.append([])
            rounded_routers.append([])
            exact = families.last_logits(reference, ids[:end], exact_routers[-1])
            positions.append(offsets[-1] + end - 1)
            logits.append(exact.float())
            errors.append((families.last_logits(theirs, ids[:end], rounded_routers[-1]) - exact).abs().max().float())
        token_ids += ids
        offsets.append(len(token_ids))
    is_tie = families.ties(reference.config, exact_routers, rounded_routers)
    save_file({
        "sequence_offsets": torch.tensor(offsets, dtype=torch.int32),
        "token_ids": torch.tensor(token_ids, dtype=torch.int32),
        "row_positions": torch.tensor(positions, dtype=torch.int32),
        "logits": torch.stack(logits), "bfloat16_error": torch.stack(errors),
        "is_tie": torch.tensor(is_tie, dtype=torch.int32),
    }, OUT / f"{name}.safetensors", metadata={"format": "witan-family-goldens", "torch": torch.__version__, "transformers": transformers.__version__})
    (OUT / f"{name}.safetensors").chmod(0o644)
    print(f"{name}: {len(positions)} rows, {sum(is_tie)} ties, largest error of bfloat16 {max(errors):.4f}", flush=True)
    return ids, exact


def main():
    OUT.mkdir(exist_ok=True)
    for name in sys.argv[1:] or [*ADAPTERS, *STACKED]:
        if name in ADAPTERS:
            make(name, *ADAPTERS[name])
        else:
            torch.manual_seed(sum(name.encode()))
            write_goldens(name, *make_with_peft(OUT / name, *STACKED[name]))


if __name__ == "__main__":
    main()
