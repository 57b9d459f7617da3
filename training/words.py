"""The tokenizer: whole words in lower case; numbers digit by digit, so that times of the clock are read and said."""

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers import models as pieces
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rekv.world import vocabulary

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_SPECIAL = (PAD, START, END, "<image>", "<video>", "<unk>")
_GLUE = "##"  # before what follows another character of the same number
_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INIT_PROMPT = f"{START}system\nYou are a helpful assistant.{END}{START}user\n"


def tokenizer() -> PreTrainedTokenizerBase:
    """Return the tokenizer of the world's words; the same words give the same ids."""
    chat = "system user assistant you are a helpful".split()
    words = sorted({*vocabulary(), *chat, *"0123456789.,?!:"})
    tokens = [*_SPECIAL, "\n", *words, *(_GLUE + piece for piece in "0123456789:")]
    model = pieces.WordPiece(
        {token: i for i, token in enumerate(tokens)}, unk_token="<unk>", continuing_subword_prefix=_GLUE
    )
    raw = Tokenizer(model)
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"[a-z]+|[0-9]+(:[0-9]+)*|\n|[^\sa-z0-9]"), "removed", invert=True)
    raw.decoder = decoders.WordPiece(_GLUE)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=raw,
        unk_token="<unk>",
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START, "<image>", "<video>"],
        clean_up_tokenization_spaces=False,
        chat_template=_CHAT,
    )
