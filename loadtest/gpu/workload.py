"""Prompts: seeded, so that every arm is sent the same bytes."""

import random

# One token each in Llama's vocabulary, with the blank before it.
WORDS = ("time year people way day man thing woman life child world school state family student group "
         "country problem hand part place case week company system program question work government "
         "number night point home water room mother area money story fact month lot right study book "
         "eye job word business issue side kind head house service friend father power hour game line "
         "end member law car city community name president team minute idea body information back "
         "parent face others level office door health person art war history party result change "
         "morning reason research girl guy moment air teacher force education").split()


def text(tokens: int, rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=tokens))


class Conversation:
    """A first message of `shared` plus `own` tokens, then turns of `turn` tokens each.

    Between two turns stands an answer that we made up: real ones differ from arm to arm, as sums in
    bfloat16 depend on the batch, and then prompts would too.
    """

    def __init__(self, number: int, seed: int, own: int, turn: int, shared: str = "", answer: int = 16):
        self.number, self.turn_tokens, self.answer_tokens = number, turn, answer
        self.rng = random.Random(f"{seed}/{number}")
        self.messages: list[dict] = [{"role": "system", "content": (shared + " " + text(own, self.rng)).strip()}]

    def next(self) -> list[dict]:
        """The messages of the next turn."""
        if len(self.messages) > 1:
            self.messages.append({"role": "assistant", "content": text(self.answer_tokens, self.rng)})
        self.messages.append({"role": "user", "content": text(self.turn_tokens, self.rng)})
        return list(self.messages)


def conversations(count: int, seed: int, own: int, turn: int = 100, shared: int = 0,
                  groups: int = 1) -> list[Conversation]:
    """`groups` system prompts of `shared` tokens, each the start of count / groups conversations."""
    starts = [text(shared, random.Random(f"{seed}/group/{group}")) for group in range(groups)]
    return [Conversation(number, seed, own, turn, starts[number % groups]) for number in range(count)]


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Poisson arrivals, in seconds."""
    rng, at, times = random.Random(seed), 0.0, []
    while (at := at + rng.expovariate(rate)) < seconds:
        times.append(at)
    return times
