"""From context to words: streaming, stop strings, ends, sampling, cancelling; `generate()` and the step loop alike."""

import copy
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rekv.attention.hook import NAME
from rekv.core import Answer, AskConfig
from rekv.decoding import GumbelNoise, Transcript, end_ids
from rekv.engine import Model, Session
from tests.support import (
    END,
    TinyLM,
    byte_tokenizer,
    decoder_lm,
    hidden_states,
    pictures,
    tiny_session,
    word_tokenizer,
    words,
)


def fallback_tokenizer() -> PreTrainedTokenizerFast:
    """Letters, and <0x..> for all else, as Llama 2 (Video-LLaVA) has."""
    vocabulary = {END: 0} | {f"<0x{i:02X}>": i + 1 for i in range(256)}
    vocabulary |= {c: 257 + i for i, c in enumerate("abcdefghijklmnopqrstuvwxyz ")}
    tokenizer = Tokenizer(BPE(vocabulary, [], byte_fallback=True, unk_token=END))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)  # type: ignore[no-untyped-call]


TOKENIZERS = {"byte-level": byte_tokenizer, "byte-fallback": fallback_tokenizer}


# -- the transcript ----------------------------------------------------------------------------------------------


@dataclass
class Told:
    pieces: list[str]
    transcript: Transcript

    @property
    def text(self) -> str:
        return self.transcript.text


def tell(tokenizer: Any, ids: Sequence[int], *stop: str, ends: Sequence[int] = (), **options: Any) -> Told:
    pieces: list[str] = []
    transcript = Transcript(tokenizer, frozenset(ends), stop, pieces.append, **options)
    for token in ids:
        if bool(transcript(torch.tensor([[token]]))):
            break
    transcript.finish()
    return Told(pieces, transcript)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text).input_ids
    return ids


def first_stop(texts: Sequence[str], stop: Sequence[str]) -> str:
    """The text before the first stop string, at the first token that completes one."""
    for text in texts:
        found = [text.find(s) for s in stop if s in text]
        if found:
            return text[: min(found)]
    return texts[-1]


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("seed", range(40))
def test_streamed_pieces_join_to_the_text_before_the_stop_string(tokenizer: Any, seed: int) -> None:
    """Random texts out of few letters, so that stop strings begin often and seldom complete."""
    made = tokenizer()
    draw = random.Random(seed)
    text = "".join(draw.choices("aab é😀", k=draw.randrange(1, 30)))
    stop = ["".join(draw.choices("aab é😀", k=draw.randrange(1, 5))) for _ in range(draw.randrange(0, 4))]
    ids = ids_of(made, text)
    told = tell(made, ids, *stop)
    prefixes = [made.decode(ids[: n + 1]) for n in range(len(ids))]
    assert prefixes[-1] == text
    assert told.text == first_stop(prefixes, stop)
    assert "".join(told.pieces) == told.text
    assert told.transcript.reason == ("stop_string" if any(s in text for s in stop) else "length")
    assert "\ufffd" not in "".join(told.pieces)


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("character", ["é", "界", "😀", "👩‍🚀"])
def test_no_half_character_is_streamed(tokenizer: Any, character: str) -> None:
    made = tokenizer()
    told = tell(made, ids_of(made, f"a{character}b"))
    assert told.text == f"a{character}b"
    assert "".join(told.pieces) == told.text
    assert all("\ufffd" not in piece for piece in told.pieces)


def test_text_is_streamed_as_soon_as_it_is_sure() -> None:
    tokenizer = byte_tokenizer()
    assert tell(tokenizer, ids_of(tokenizer, "abc")).pieces == ["a", "b", "c"]
    assert tell(tokenizer, ids_of(tokenizer, "a-é-b"), "--").pieces == ["a", "-é", "-b"]


def test_what_looked_like_a_stop_string_is_told_in_the_end() -> None:
    tokenizer = byte_tokenizer()
    told = tell(tokenizer, ids_of(tokenizer, "one EN"), "END")
    assert (told.text, "".join(told.pieces), told.transcript.reason) == ("one EN", "one EN", "length")


def test_stop_string_in_the_middle_of_a_token() -> None:
    tokenizer = word_tokenizer()
    told = tell(tokenizer, [12, 34, 56], "3")
    assert (told.text, told.pieces) == ("w12 w", ["w12", " w"])
    assert told.transcript.ids == [12, 34]


def test_half_a_character_at_the_end_is_told_as_it_is() -> None:
    """The answer was cut by its length: what there is belongs to the text."""
    tokenizer = byte_tokenizer()
    told = tell(tokenizer, ids_of(tokenizer, "a😀")[:3])
    assert "".join(told.pieces) == told.text == "a\ufffd"


@pytest.mark.parametrize("special", [True, False], ids=["special", "ordinary"])
def test_end_token_is_not_part_of_the_text(special: bool) -> None:
    """Checkpoints list ends that their tokenizers do not call special."""
    tokenizer = word_tokenizer()
    end = 0 if special else 9
    told = tell(tokenizer, [12, 34, end], ends=[end])
    assert (told.text, "".join(told.pieces)) == ("w12 w34", "w12 w34")
    assert (told.transcript.ids, told.transcript.reason) == ([12, 34, end], "stop")


def test_callbacks_come_in_order() -> None:
    calls: list[str] = []

    def cancelled() -> bool:
        calls.append("cancelled?")
        return len(calls) > 4

    transcript = Transcript(
        word_tokenizer(),
        frozenset(),
        (),
        lambda text: calls.append(text),
        cancelled,
        lambda: calls.append("first"),
    )
    stopped = [bool(transcript(torch.tensor([[token]]))) for token in (5, 6)]
    assert calls == ["first", "w5", "cancelled?", " w6", "cancelled?"]
    assert (stopped, transcript.reason) == ([False, True], "cancelled")


# -- a model whose every word is known -----------------------------------------------------------------------------


def chain_lm(logits: Tensor) -> Any:
    """A Qwen2 whose next token depends on the last one alone: `logits` (vocabulary, vocabulary)."""
    vocabulary = len(logits)
    hidden = -(-vocabulary // 32) * 32
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(vocabulary, hidden))
        model.model.norm.weight.fill_(hidden**-0.5)
        model.lm_head.weight.copy_(torch.nn.functional.pad(logits.T, (0, hidden - vocabulary)))
    model.set_attn_implementation(NAME)
    return model.eval()  # type: ignore[no-untyped-call]


def saying(text: str, tokenizer: Any, *, end: bool = True) -> Session:
    """A session whose answers to anything are `text`, whose tokens are all different."""
    ids = ids_of(tokenizer, "?" + text) + ([tokenizer.eos_token_id] if end else [])
    assert len(set(ids)) == len(ids)
    logits = torch.zeros(len(tokenizer), len(tokenizer))
    for last, token in itertools.pairwise(ids):
        logits[last, token] = 20.0
    if not end:
        logits[ids[-1], ids[-1]] = 20.0
    family = TinyLM(chain_lm(logits), tokenizer, init="hello", after="?")
    return Model(family).session(n_local=60)


LOOPS: dict[str, dict[str, Any]] = {
    "generate": {"max_new_tokens": 30},
    "steps": {"max_new_tokens": 300},
}  # 300 tokens outgrow n_local


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
class TestAnswers:
    def test_end_token_ends_the_answer(self, loop: dict[str, Any]) -> None:
        answer = saying("fin😀 day", byte_tokenizer()).ask("x", **loop)
        assert (answer.text, answer.finish_reason) == ("fin😀 day", "stop")
        assert answer.token_ids[-1] == byte_tokenizer().eos_token_id

    def test_stop_string_ends_the_answer(self, loop: dict[str, Any]) -> None:
        pieces: list[str] = []
        answer = saying("fin😀 day", byte_tokenizer()).ask("x", stop=(" day", "zzz"), on_text=pieces.append, **loop)
        assert (answer.text, answer.finish_reason) == ("fin😀", "stop_string")
        assert "".join(pieces) == "fin😀"

    def test_stop_string_without_streaming(self, loop: dict[str, Any]) -> None:
        answer = saying("abcdef", byte_tokenizer()).ask("x", stop=("d",), **loop)
        assert (answer.text, answer.finish_reason, len(answer.token_ids)) == ("abc", "stop_string", 4)

    def test_every_listed_end_token_ends_the_answer(self, loop: dict[str, Any]) -> None:
        tokenizer = byte_tokenizer()
        session = saying("abcdef", tokenizer)
        d, e = ids_of(tokenizer, "de")
        session.model.family.hf.generation_config.eos_token_id = [e, d]
        answer = session.ask("x", **loop)
        assert (answer.finish_reason, answer.token_ids[-1], len(answer.token_ids)) == ("stop", d, 4)

    def test_cancel_keeps_what_was_said(self, loop: dict[str, Any]) -> None:
        pieces: list[str] = []
        answer = saying("abcdef", byte_tokenizer()).ask(
            "x", on_text=pieces.append, cancelled=lambda: len(pieces) == 3, **loop
        )
        assert (answer.text, answer.finish_reason, "".join(pieces)) == ("abc", "cancelled", "abc")

    def test_one_token(self, loop: dict[str, Any]) -> None:
        answer = saying("abcdef", byte_tokenizer()).ask("x", **loop | {"max_new_tokens": 1})
        assert (answer.text, answer.finish_reason, len(answer.token_ids)) == ("a", "length", 1)

    def test_end_token_at_once(self, loop: dict[str, Any]) -> None:
        answer = saying("", byte_tokenizer()).ask("x", **loop)
        assert (answer.text, answer.finish_reason, len(answer.token_ids)) == ("", "stop", 1)


@pytest.mark.parametrize("n_local", [60, 300], ids=["steps", "generate"])
def test_length_ends_the_answer(n_local: int) -> None:
    tokenizer = byte_tokenizer()
    session = saying("ab", tokenizer, end=False)
    session = session.model.session(n_local=n_local)
    answer = session.ask("x", max_new_tokens=100)
    assert (answer.text, answer.finish_reason) == ("a" + "b" * 99, "length")


# -- sampling ------------------------------------------------------------------------------------------------------


def chi_square(counts: Tensor, probabilities: Tensor) -> float:
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def test_gumbel_noise_samples_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5, -torch.inf])
    drawn = GumbelNoise(4, torch.device("cpu"))(None, logits.expand(40_000, -1)).argmax(-1)
    counts = drawn.bincount(minlength=6).double()
    assert counts[5] == 0
    assert chi_square(counts[:5], logits[:5].double().softmax(-1)) < 18.5  # 4 degrees of freedom: p = 0.001


@pytest.mark.parametrize("n_local", [200, 4000], ids=["steps", "generate"])
def test_answers_are_distributed_as_temperature_and_top_p_say(n_local: int) -> None:
    row = torch.tensor([-9.0, 2.0, 1.5, 1.0, 0.0, -0.5])
    vocabulary = torch.full((101,), -30.0)
    vocabulary[: len(row)] = row
    family = TinyLM(chain_lm(vocabulary.expand(101, -1)))
    family.tokenizer.eos_token = None
    session = Model(family).session(n_local=n_local)
    answer = session.ask("w7", temperature=0.7, top_p=0.9, seed=1, max_new_tokens=400)
    counts = torch.tensor(answer.token_ids).bincount(minlength=6).double()
    probabilities = (vocabulary.double() / 0.7).softmax(-1)[:6]
    kept = [1, 2, 3]  # the fewest tokens with 0.9 of the mass
    assert float(probabilities[[1, 2]].sum()) < 0.9 <= float(probabilities[kept].sum())
    assert counts.sum() == counts[kept].sum() == 400
    assert chi_square(counts[kept], probabilities[kept] / probabilities[kept].sum()) < 13.8  # p = 0.001


def ask_sampled(session: Session, **settings: Any) -> tuple[int, ...]:
    return session.ask("w7 w8", temperature=1.5, max_new_tokens=12, **settings).token_ids


def test_a_seed_makes_sampling_reproducible_and_needs_no_global_state() -> None:
    session = tiny_session(n_local=200)
    session.append(pictures(5))
    torch.manual_seed(0)
    first = ask_sampled(session, seed=11)
    state = torch.get_rng_state()
    assert ask_sampled(session, seed=11) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert ask_sampled(session, seed=12) != first
    assert len({ask_sampled(session) for _ in range(4)}) > 1  # None: a new seed each time


def test_temperature_zero_is_greedy_whatever_the_seed() -> None:
    session = tiny_session(n_local=200)
    session.append(pictures(5))
    told = {session.ask("w7", temperature=0.0, seed=s, top_p=p).token_ids for s, p in ((1, 1.0), (2, 0.5))}
    assert len(told) == 1


# -- the checkpoint's own generation settings ------------------------------------------------------------------------

FOREIGN: list[dict[str, Any]] = [
    {"do_sample": True, "temperature": 5.0, "top_k": 3, "top_p": 0.2},
    {"repetition_penalty": 30.0},
    {"num_beams": 3},
    {"no_repeat_ngram_size": 1},
    {"max_new_tokens": 2},
    {"max_length": 3},
    {"min_new_tokens": 8},
    {"min_length": 60},
    {"suppress_tokens": list(range(1, 90))},
    {"begin_suppress_tokens": list(range(1, 90))},
    {"bad_words_ids": [[i] for i in range(1, 90)]},
    {"sequence_bias": [[[5], 90.0]]},
    {"forced_eos_token_id": 4},
    {"forced_bos_token_id": 4},
    {"exponential_decay_length_penalty": (1, 50.0)},
    {"encoder_repetition_penalty": 40.0},
    {"encoder_no_repeat_ngram_size": 1},
    {"guidance_scale": 4.0},
    {"use_cache": False},
    {"cache_implementation": "static"},
    {"max_time": 1e-9},
    {"stop_strings": ["w"]},
    {"return_dict_in_generate": True, "output_scores": True, "output_logits": True},
    {"output_hidden_states": True, "return_dict_in_generate": True},
    {"num_return_sequences": 2},
    {"prompt_lookup_num_tokens": 3},
    {"penalty_alpha": 0.6, "top_k": 4},
    {"min_p": 0.9},
    {"typical_p": 0.1},
    {"remove_invalid_values": True},
]


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda foreign: next(iter(foreign)))
def test_generation_settings_of_a_checkpoint_do_not_leak_in(foreign: dict[str, Any]) -> None:
    plain = decoder_lm()
    tuned = copy.deepcopy(plain)
    for name, value in foreign.items():
        setattr(tuned.generation_config, name, value)
    told = []
    for hf in (plain, tuned):
        tokenizer = word_tokenizer()
        session = tiny_session(n_local=200, hf=hf, tokenizer=tokenizer)
        session.append(pictures(4))
        told.append(session.ask("w7 w8 w9", max_new_tokens=8).token_ids)
    assert told[0] == told[1]


def test_end_ids_are_those_of_tokenizer_and_checkpoint() -> None:
    hf = copy.deepcopy(decoder_lm())
    tokenizer = word_tokenizer()
    assert end_ids(hf, tokenizer) == {0}
    hf.generation_config.eos_token_id = 7
    assert end_ids(hf, tokenizer) == {0, 7}
    hf.generation_config.eos_token_id = [8, 9]
    assert end_ids(hf, tokenizer) == {0, 8, 9}


# -- generate() and the step loop ------------------------------------------------------------------------------------


def both_loops(session: Session, question: str, tokens: int, **settings: Any) -> list[tuple[Answer, Tensor]]:
    """The same question through `generate()`, and through the step loop: 10,000 tokens would outgrow any window."""
    told = []
    for most in (tokens, 10_000):
        left = itertools.count(tokens - 1, -1)
        with hidden_states(session.model.decoder) as hidden:
            answer = session.ask(
                question,
                max_new_tokens=most,
                cancelled=lambda left=left: next(left) <= 0,  # type: ignore[misc]
                **settings,
            )
        told.append((answer, torch.cat(hidden[1:])))
    return told


@pytest.mark.parametrize("seed", range(25))
def test_step_loop_and_generate_agree(seed: int) -> None:
    """Also with layers that retrieved different numbers of tokens: a short last chunk that only some of them took."""
    draw = random.Random(seed)
    chunk = draw.choice((1, 2, 3, 5))
    session = tiny_session(n_local=400, frames_per_call=5, tokens_per_frame=draw.choice((1, 3, 4)))
    session.append(pictures(draw.randrange(0, 24)))
    settings: dict[str, Any] = {
        "retrieve_size": chunk * draw.randrange(1, 4),
        "chunk_size": chunk,
        "recent_frames": draw.choice((0, 2)),
    }
    if draw.random() < 0.5:
        settings |= {"temperature": 0.9, "top_p": 0.9, "seed": seed}
    question = words([draw.randrange(1, 101) for _ in range(draw.randrange(1, 12))])
    (first, ours), (second, steps) = both_loops(session, question, 6, **settings)
    assert first.retrieval.frames == second.retrieval.frames
    assert first.token_ids == second.token_ids
    torch.testing.assert_close(ours, steps, atol=1e-4, rtol=0)


def test_layers_of_unequal_length_do_occur() -> None:
    """Otherwise the test above would say nothing about them."""
    session = tiny_session(n_local=400)
    session.append(pictures(11))
    unequal = 0
    for i in range(1, 40):
        frames = session.ask(words([i, i + 1]), retrieve_size=4, chunk_size=2, max_new_tokens=1).retrieval.frames
        unequal += len({len(layer) for layer in frames}) > 1
    assert unequal > 3


def test_long_prompt_of_a_short_question() -> None:
    session = tiny_session(n_local=1000, before=words(i % 100 + 1 for i in range(700)))  # type: ignore[arg-type]
    session.append(pictures(3))
    (first, ours), (second, steps) = both_loops(session, "w7", 4)
    assert first.token_ids == second.token_ids
    torch.testing.assert_close(ours, steps, atol=1e-4, rtol=0)


def test_defaults_are_greedy() -> None:
    assert (AskConfig().temperature, AskConfig().top_p, AskConfig().stop) == (0.0, 1.0, ())
