import pytest
from openai.types.chat import ChatCompletionMessage

from minillm.serve.conversation import conversation
from minillm.serve.refusal import RequestError
from minillm.serve.tool_calls import call_text

ASK = {"role": "user", "content": "What is 3 times 4?"}
FUNCTION = {"name": "calculate", "arguments": '{ "expression": "3 * 4" }'}
ONE = {"id": "call_7", "type": "function", "function": FUNCTION}
CALL = {"role": "assistant", "content": None, "tool_calls": [ONE]}
RESULT = {"role": "tool", "tool_call_id": "call_7", "content": "12"}
TEXT = call_text("calculate", {"expression": "3 * 4"})


def read(*messages):
    return [tuple(message) for message in conversation({"messages": [*messages]})]


# --- by hand --------------------------------------------------------------------------------------
def test_a_call_and_its_result_have_roles_of_their_own():
    talk = [("user", ASK["content"]), ("call", TEXT), ("result", "12")]
    assert read(ASK, CALL, RESULT) == talk
    parts = [{"type": "text", "text": "1"}, {"type": "text", "text": "2"}]
    assert read(ASK, CALL, RESULT | {"content": parts}) == talk


def test_a_text_before_a_call_is_a_message_of_its_own():
    assert read(ASK, CALL | {"content": "Let me see."}, RESULT)[1:3] == [
        ("assistant", "Let me see."),
        ("call", TEXT),
    ]


# --- reference ------------------------------------------------------------------------------------
def test_an_answer_of_openais_client_can_be_sent_back_as_it_is():
    answer = ChatCompletionMessage.model_validate(CALL).model_dump()
    assert read(ASK, answer, RESULT)[1] == ("call", TEXT)


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([RESULT], "0.tool_call_id"),
        ([{"role": "tool", "content": "12"}], "0.tool_call_id"),
        ([CALL, ASK], "1.tool_call_id"),
        ([CALL, RESULT | {"tool_call_id": "call_8"}], "1.tool_call_id"),
        ([CALL, RESULT, RESULT], "2.tool_call_id"),
        ([ASK, CALL], "1.tool_calls"),
        ([CALL | {"tool_calls": [ONE, ONE]}], "0.tool_calls"),
        ([CALL | {"tool_calls": {"id": 1}}], "0.tool_calls"),
        ([CALL | {"role": "user"}], "0.tool_calls"),
        ([RESULT | {"role": "user"}], "0.tool_call_id"),
        ([CALL, RESULT | {"content": None}], "1.content"),
    ],
)
def test_what_is_out_of_place_is_named(messages, param):
    with pytest.raises(RequestError) as error:
        read(*messages)
    assert error.value.param == f"messages.{param}"


@pytest.mark.parametrize("text", ["12", "{", '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 10**5])
def test_arguments_that_are_no_object_are_refused(text):
    function = {"name": "calculate", "arguments": text}
    with pytest.raises(RequestError, match="must be the text of a JSON object") as error:
        read(CALL | {"tool_calls": [ONE | {"function": function}]})
    assert error.value.param == "messages.0.tool_calls.0.function.arguments"
