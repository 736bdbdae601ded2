from minillm.serve.request import Completion, Event, Logprobs


def test_a_completion_is_the_sum_of_its_events():
    likely = Logprobs(-0.5, ((7, -0.5),))
    answer = Completion()
    for event in (
        Event(0, 7, "re", None, likely),
        Event(0, 8, "d", None),
        Event(0, None, "", "stop"),  # the token that ended it is none of the answer's
    ):
        answer.add(event)
    assert answer == Completion(tokens=[7, 8], text="red", finish_reason="stop", logprobs=[likely])
