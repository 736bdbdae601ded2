import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from minillm.formats.hf_rope import read_rope, to_rope
from minillm.model.rope import Llama3Scaling, NtkScaling, PositionInterpolation, RopeConfig

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


# --- by hand -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "content, expected",
    [
        ({}, RopeConfig()),
        ({"rope_theta": 500000}, RopeConfig(base=500000.0)),
        ({"rope_theta": 1e6, "rope_scaling": None}, RopeConfig(base=1e6)),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, RopeConfig(base=5e5)),
        (
            {"rope_scaling": {"type": "linear", "factor": 2}},
            RopeConfig(scaling=PositionInterpolation(2.0)),
        ),
        (
            {"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2.0}},
            RopeConfig(scaling=PositionInterpolation(2.0)),
        ),
        (
            {"rope_theta": 5e5, "rope_scaling": LLAMA3},
            RopeConfig(base=5e5, scaling=Llama3Scaling(factor=8.0, original_context_length=64)),
        ),
        (
            {"rope_parameters": LLAMA3 | {"rope_theta": 5e5, "low_freq_factor": 2.0}},
            RopeConfig(
                base=5e5,
                scaling=Llama3Scaling(
                    factor=8.0, low_freq_factor=2.0, original_context_length=64
                ),
            ),
        ),
        (
            {"rope_theta": 7.0, "rope_parameters": {"rope_theta": 7.0}, "rope_scaling": {}},
            RopeConfig(base=7.0),
        ),
        ({"partial_rotary_factor": 1.0}, RopeConfig()),
    ],
)  # fmt: skip
def test_a_rotation_is_read_from_where_each_transformers_wrote_it(content, expected):
    assert read_rope(content) == expected


def test_numbers_are_written_as_floats_since_transformers_warns_of_others():
    scaling = Llama3Scaling(
        factor=8, low_freq_factor=1, high_freq_factor=4, original_context_length=64
    )
    for part in (None, PositionInterpolation(2), NtkScaling(2), scaling):
        told = to_rope(RopeConfig(base=500, scaling=part), d_head=4)
        kinds = {name: type(value) for name, value in told.items()}
        assert kinds.pop("rope_type") is str
        assert kinds.pop("original_max_position_embeddings", int) is int
        assert set(kinds.values()) == {float}


def test_llama3_without_an_original_length_means_the_whole_context():
    said = {key: value for key, value in LLAMA3.items() if "original" not in key}
    rope = read_rope({"rope_scaling": said, "max_position_embeddings": 96})
    assert rope.scaling.original_context_length == 96
    with pytest.raises(ValueError, match="original_max_position_embeddings must be a whole number"):
        read_rope({"rope_scaling": said})


# --- reference ---------------------------------------------------------------------------------
ROPES = {
    "default": RopeConfig(base=5000.0),
    "linear": RopeConfig(scaling=PositionInterpolation(3.0)),
    "llama3": RopeConfig(base=5e5, scaling=Llama3Scaling(factor=8.0, original_context_length=64)),
    "ntk": RopeConfig(base=500.0, scaling=NtkScaling(4.0)),
}


@pytest.mark.parametrize("name", ROPES)
def test_transformers_turns_by_the_same_angles(name):
    told = to_rope(ROPES[name], d_head=16)
    config = LlamaConfig(
        hidden_size=32, num_attention_heads=2, head_dim=16, rope_parameters=dict(told)
    )
    if told["rope_type"] == "default":
        theirs = 1 / told["rope_theta"] ** (torch.arange(0, 16, 2, dtype=torch.float64) / 16)
    else:
        theirs, _ = ROPE_INIT_FUNCTIONS[told["rope_type"]](config)
    torch.testing.assert_close(theirs.double(), ROPES[name].frequencies(16), rtol=1e-6, atol=0)


# --- law ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ROPES)
def test_what_is_written_is_read_back_with_the_same_angles(name):
    told = to_rope(ROPES[name], d_head=16)
    again = read_rope({"rope_parameters": told})
    expected = ROPES[name].frequencies(16)
    torch.testing.assert_close(again.frequencies(16), expected, rtol=1e-12, atol=0)
    assert (again == ROPES[name]) == (name != "ntk")  # which is told as a larger base


# --- bad input ---------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["dynamic", "yarn", "longrope", "proportional", None, 7, ["x"]])
def test_another_type_is_named_and_refused(kind):
    with pytest.raises(ValueError, match=r"rope_type: .* minillm has default, linear, llama3"):
        read_rope({"rope_scaling": {"rope_type": kind, "factor": 2.0}})


@pytest.mark.parametrize("key", ["attention_factor", "beta_fast", "mscale", "full_attention"])
def test_a_name_that_the_type_does_not_have_is_refused(key):
    content = {"rope_parameters": {"rope_type": "linear", "factor": 2.0, key: 1.0}}
    with pytest.raises(ValueError, match=f"of a linear rotation what minillm does not know: {key}"):
        read_rope(content)


@pytest.mark.parametrize(
    "content",
    [
        {"rope_theta": 5.0, "rope_parameters": {"rope_theta": 7.0}},
        {"rope_scaling": {"rope_theta": 5.0}, "rope_parameters": {"rope_theta": 7.0}},
        {"rope_scaling": {"type": "linear", "rope_type": "llama3"}},
    ],
)
def test_two_answers_are_refused(content):
    with pytest.raises(ValueError, match="the config says two things of rope_t"):
        read_rope(content)


@pytest.mark.parametrize("place", ["rope_parameters", "rope_scaling", None])
def test_heads_that_are_turned_in_part_are_refused(place):
    said = {"partial_rotary_factor": 0.5}
    with pytest.raises(ValueError, match="partial_rotary_factor: of each head only a part"):
        read_rope(said if place is None else {place: said})


@pytest.mark.parametrize(
    "said, message",
    [
        ({"type": "linear"}, r"^rope_scaling\.factor must be a finite number above 0; got None"),
        ({"type": "linear", "factor": "2"}, "factor must be a finite number above 0; got '2'"),
        ({"type": "linear", "factor": 0.5}, "factor must be a finite number of at least 1"),
        (
            LLAMA3 | {"low_freq_factor": None},
            r"^rope_scaling\.low_freq_factor must be a finite num",
        ),
        (LLAMA3 | {"high_freq_factor": 1.0}, "low_freq_factor must be at least 0 and below"),
        ([2.0], r"the rotation must be an object of names and values; got \[2\.0\]"),
        ({"rope_theta": 0.5}, "base must be a finite number above 1"),
    ],
)
def test_a_value_that_means_nothing_is_refused(said, message):
    with pytest.raises(ValueError, match=message):
        read_rope({"rope_scaling": said})
