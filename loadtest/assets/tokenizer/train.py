"""Trains the small tokenizer beside this file: `python train.py` (needs the `tokenizers` package).

Same pre-tokenizer, post-processor and special tokens as Llama 3.1, a vocabulary of a few thousand
words. Every word of prompt.txt and of the chat template's header is one token here as it is in
Llama 3.1, so both tokenizers count the same for them ("Cutting" is two in both).
"""

import json
import pathlib

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
VOCABULARY = 4096
SPECIALS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]
# Llama 3's split, from its published tokenizer.json.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
HEADER = (
    "system\n\nCut ting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    "user\n\nHi! Hello! What is 2+2?\n\nassistant\n\n"
)


def corpus():
    words = (HERE / "words.txt").read_text().split()
    for _ in range(8):
        yield from (" " + word for word in words)
    for _ in range(3):
        yield (HERE / "corpus.txt").read_text()
    # Often enough that each of these words becomes one token.
    for _ in range(40):
        yield (HERE.parent / "prompt.txt").read_text()
        yield HEADER


def main():
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIALS),
        min_frequency=3,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(SPECIALS)
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A",
        pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
        special_tokens=[("<|begin_of_text|>", bos)],
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(HERE / "tokenizer.json"), pretty=False)
    config = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    (HERE / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    print("vocabulary:", tokenizer.get_vocab_size())


if __name__ == "__main__":
    main()
