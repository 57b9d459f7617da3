"""How likely each option's letter is: measured while answering, for nothing."""

import math

import pytest
import torch

from rekv.engine import Session
from tests.support import byte_tokenizer, decoder_lm, hidden_states, pictures, tiny_session

CHOICES = ("a cup", "a ball", "a hat")


def bytes_session(n_local: int) -> Session:
    session = tiny_session(n_local=n_local, hf=decoder_lm(vocabulary=257), tokenizer=byte_tokenizer())
    session.append(pictures(6))
    return session


@pytest.mark.parametrize("n_local", [40, 2000], ids=["step by step", "generate()"])
def test_logprobs_are_those_of_the_first_token(n_local: int) -> None:
    session = bytes_session(n_local)
    family = session.model.family
    with hidden_states(session.model.decoder) as hidden:
        answer = session.ask("what?", choices=CHOICES, retrieve_size=3, max_new_tokens=2)
    prompt = next(states for states in hidden[1:] if len(states) == len(family.prompt_ids("what?", CHOICES)))
    logits = family.hf.lm_head(prompt[-1].clone()).detach().float().log_softmax(-1)
    expected = [float(logits[family.tokenizer(letter).input_ids[-1]]) for letter in "ABC"]
    assert answer.choice_logprobs == pytest.approx(expected, abs=1e-4)
    assert int(logits.argmax()) == answer.token_ids[0], "it is the distribution that the answer was chosen from"


def test_nothing_else_changes() -> None:
    session = bytes_session(2000)
    asked = session.ask("what?", choices=CHOICES, max_new_tokens=4)
    again = session.ask("what?", choices=CHOICES, max_new_tokens=4, temperature=0.5, seed=1)
    assert asked.choice_logprobs == pytest.approx(again.choice_logprobs), "before temperature and noise"
    assert session.ask("what?", max_new_tokens=4).choice_logprobs == ()


def test_a_letter_counts_in_whichever_way_it_is_written() -> None:
    family = bytes_session(2000).model.family
    assert family.letter_ids(2) == [family.tokenizer("A").input_ids, family.tokenizer("B").input_ids]
    whole = torch.tensor(bytes_session(2000).ask("?", choices=("x", "y")).choice_logprobs).logsumexp(0)
    assert float(whole) < 0
    assert math.isfinite(float(whole))
