"""A long answer of which the beginning is kept teaches no end of a turn."""

from tests.support.tiny_model import tokenizer_folder
from trainers.models.base_model import load_tokenizer
from trainers.replay.examples import ReplayExample
from trainers.replay.tokens import render_replay


def test_only_a_whole_answer_ends_the_turn() -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder()))
    whole = ReplayExample(question="Where is the lamp?", answer="It stands beside the")
    cut = whole.model_copy(update={"is_whole": False})
    first, second = render_replay(tokenizer, whole), render_replay(tokenizer, cut)
    assert first.prompt_ids == second.prompt_ids
    assert first.completion_ids == (*second.completion_ids, tokenizer.eos_token_id)
    assert tokenizer.decode(second.completion_ids) == "It stands beside the"
