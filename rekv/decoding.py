"""From a context to words: transformers' `generate()`, or the same loop step by step where a window is needed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import accumulate
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    Cache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from rekv.attention.devices import input_device
from rekv.attention.hook import AttentionPass, run
from rekv.attention.passes import AnswerPass
from rekv.attention.together import Together
from rekv.core import AskConfig, FinishReason
from rekv.memory.context import ContextLayer


class FirstToken(LogitsProcessor):
    """Watches how likely each of some letters is as the answer's first token; changes nothing."""

    def __init__(self, letters: Sequence[Sequence[int]]) -> None:
        """`letters`: the tokens that each of them may be written as."""
        self._letters = letters
        self.logprobs: tuple[float, ...] = ()

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if not self.logprobs:
            all_tokens = scores[0].float().log_softmax(-1)
            self.logprobs = tuple(float(all_tokens[list(ids)].logsumexp(0)) for ids in self._letters)
        return scores


@dataclass
class Transcript(StoppingCriteria):
    """Watches the tokens of one answer: its text, when it ends, and why.

    Text is handed out as soon as it is sure: not half a character, and nothing that may turn out to be the start of
    a stop string.
    """

    tokenizer: PreTrainedTokenizerBase
    end_ids: frozenset[int]
    stop: Sequence[str] = ()
    on_text: Callable[[str], None] | None = None
    cancelled: Callable[[], bool] | None = None
    on_first_token: Callable[[], None] | None = None
    letters: FirstToken | None = None  # of a multiple-choice question

    ids: list[int] = field(default_factory=list)
    text: str = ""
    reason: FinishReason = "length"
    first_token_at: float = 0.0
    done_at: float = 0.0
    _told: int = 0  # characters handed out

    def __call__(self, input_ids: Tensor, scores: Any = None, **kwargs: Any) -> Any:
        """Take the newest token; called by transformers after each one. Returns a (1,) bool tensor: stop."""
        return torch.tensor([self.take(int(input_ids[0, -1]))], device=input_ids.device)

    def take(self, token: int) -> bool:
        """Take the newest token; return whether it is the last."""
        if not self.ids:
            self.first_token_at = perf_counter()
            if self.on_first_token is not None:
                self.on_first_token()
        self.ids.append(token)
        return self._ends(token)

    def finish(self) -> None:
        """Complete the text after the last token."""
        if self.reason != "stop_string":
            self.text = self._decode()
        self._tell(len(self.text))
        self.done_at = perf_counter()

    def _ends(self, token: int) -> bool:
        if token in self.end_ids:
            self.reason = "stop"
            return True
        if self.stop or self.on_text is not None:
            self.text = self._decode()
            found = [i for s in self.stop if (i := self.text.find(s)) >= 0]
            if found:
                self.text = self.text[: min(found)]
                self.reason = "stop_string"
                return True
            self._tell(self._sure())
        if self.cancelled is not None and self.cancelled():
            self.reason = "cancelled"
            return True
        return False

    def _decode(self) -> str:
        ids = self.ids[:-1] if self.reason == "stop" else self.ids  # not every tokenizer calls its end special
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text if isinstance(text, str) else "".join(text)

    def _sure(self) -> int:
        text = self.text.rstrip("\ufffd")  # what half a character decodes to, once per byte
        held = max((_overlap(text, s) for s in self.stop), default=0)
        return len(text) - held

    def _tell(self, upto: int) -> None:
        if self.on_text is not None and upto > self._told:
            self.on_text(self.text[self._told : upto])
            self._told = upto


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop)), 0, -1) if text.endswith(stop[:n])), 0)


class GumbelNoise(LogitsProcessor):
    """Makes greedy choice a sample: argmax(logits + Gumbel noise) is distributed as softmax(logits).

    The noise comes from the question's own generator, so sampling is reproducible and needs no global random state,
    which other threads share.
    """

    def __init__(self, seed: int | None, device: torch.device) -> None:
        self._generator = torch.Generator(device)
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        noise = torch.empty_like(scores).exponential_(generator=self._generator)
        return scores - noise.log()


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's, and the checkpoint's own list."""
    config = model.generation_config
    listed = config.eos_token_id if config is not None else None
    found: Iterable[int | None] = (
        *(listed if isinstance(listed, list) else [listed]),
        tokenizer.eos_token_id,
    )
    return frozenset(i for i in found if i is not None)


def decode(
    model: PreTrainedModel,
    prompt: Sequence[int],
    contexts: Mapping[int, ContextLayer],
    position: int,
    ask: AskConfig,
    transcript: Transcript,
    windowed: AnswerPass | None,
) -> None:
    """Continue `contexts` with the prompt, whose first token stands at `position`, until the transcript ends.

    With `windowed` each step runs under the window + sink rule; without, `generate()` runs the stock model.
    """
    if windowed is None:
        _generate(model, prompt, contexts, position, ask, transcript)
        transcript.finish()
    else:
        decode_together(model, [prompt], [windowed], ask, [transcript])


def decode_together(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    passes: Sequence[AnswerPass],
    ask: AskConfig,
    transcripts: Sequence[Transcript],
) -> None:
    """Continue several contexts, each with its prompt, until all transcripts have ended: one forward pass per token.

    Sampling draws from a generator per answer, so that each is what it would be alone.
    """
    device = _device(model)
    processors = [_processors(ask, device, transcript) for transcript in transcripts]
    new = [list(prompt) for prompt in prompts]
    together = Together(passes)
    attention: AttentionPass = together if len(passes) > 1 else passes[0]
    while any(new):
        together.tokens = [len(own) for own in new]
        going = [i for i, own in enumerate(new) if own]
        ids = torch.tensor([[token for own in new for token in own]], device=device)
        # A list, for the model's last layer may be on another device than its inputs.
        last = [end - 1 for end in accumulate(len(new[i]) for i in going)]
        logits = run(model, attention, input_ids=ids, logits_to_keep=last).logits[0]
        logits = logits if len(logits) == len(going) else logits[last]  # not every model knows what to keep
        logits = logits.to(device, torch.float32)
        rows = zip(going, logits.split(1), strict=True)
        chosen = torch.cat([processors[i](ids, row) for i, row in rows]).argmax(-1)  # type: ignore[arg-type]
        for i, token in zip(going, chosen.tolist(), strict=True):
            new[i] = [token]
            if transcripts[i].take(token) or len(transcripts[i].ids) == ask.max_new_tokens:
                transcripts[i].finish()
                new[i] = []


def _device(model: PreTrainedModel) -> torch.device:
    embedding: nn.Embedding = model.get_input_embeddings()  # type: ignore[assignment]
    return input_device(embedding)


def _processors(ask: AskConfig, device: torch.device, transcript: Transcript) -> LogitsProcessorList:
    chain: list[LogitsProcessor] = [transcript.letters] if transcript.letters else []
    if ask.temperature == 0:
        return LogitsProcessorList(chain)
    chain.append(TemperatureLogitsWarper(ask.temperature))
    if ask.top_p < 1:
        chain.append(TopPLogitsWarper(ask.top_p))
    return LogitsProcessorList([*chain, GumbelNoise(ask.seed, device)])


def _generate(
    model: PreTrainedModel,
    prompt: Sequence[int],
    contexts: Mapping[int, ContextLayer],
    position: int,
    ask: AskConfig,
    transcript: Transcript,
) -> None:
    ids = torch.tensor([prompt], device=_device(model))
    cache = Cache(layers=[contexts[i] for i in sorted(contexts)])
    n = ids.shape[1]
    # `generate()` takes whatever it is not told from the model's own generation config (repetition penalties, beams,
    # ...). A shallow copy shares the weights and has a config that says nothing.
    stock = copy(model)
    stock.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    stock.generate(  # type: ignore[operator]
        input_ids=ids,
        # A mask longer than the ids is how transformers knows that they continue a cache.
        attention_mask=torch.ones(1, cache.get_seq_length() + n, dtype=torch.long, device=ids.device),
        position_ids=torch.arange(position, position + n, device=ids.device)[None],
        past_key_values=cache,
        generation_config=_greedy(ask, transcript.end_ids),
        logits_processor=_processors(ask, ids.device, transcript),
        stopping_criteria=StoppingCriteriaList([transcript]),
    )


def _greedy(ask: AskConfig, ends: frozenset[int]) -> GenerationConfig:
    """Greedy choice over processed logits."""
    ids = sorted(ends)
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=ask.max_new_tokens,
        do_sample=False,
        eos_token_id=ids or None,
        pad_token_id=ids[0] if ids else 0,
    )
