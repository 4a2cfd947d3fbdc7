"""The quick way to read a usage object says the same as the careful one."""

from hypothesis import given
from hypothesis import strategies as st

from providers.formats import chat_completions

COUNTS = st.integers(0, 50)
DETAILS = st.one_of(
    st.none(), st.fixed_dictionaries({}, optional={"cached_tokens": COUNTS, "cache_write_tokens": COUNTS})
)
SPENT = st.one_of(st.none(), st.fixed_dictionaries({}, optional={"reasoning_tokens": COUNTS, "audio_tokens": COUNTS}))
USAGES = st.fixed_dictionaries(
    {"prompt_tokens": COUNTS, "completion_tokens": COUNTS},
    optional={"prompt_tokens_details": DETAILS, "completion_tokens_details": SPENT},
).map(lambda usage: usage | {"total_tokens": usage["prompt_tokens"] + usage["completion_tokens"]})


@given(USAGES)
def test_both_ways_read_the_same(usage):
    quick = chat_completions._plain_usage(usage)
    # A field that nobody knows sends it the careful way.
    assert quick is None or quick == chat_completions.read_usage(usage | {"unheard_of": 1})


def test_a_usual_object_goes_the_quick_way():
    usage = {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20}
    assert chat_completions._plain_usage(usage) is not None
